"""Wan's video autoencoder from a local folder in diffusers' layout (``AutoencoderKLWan``), as a codec.

Wan 2.2 (4 x 16 x 16, 48 channels: pictures go in as patches of 2 x 2) and Wan 2.1 (4 x 8 x 8, 16 channels). Its
convolutions are causal in time and begin afresh with every call, so each group of ``1 + 4 n`` frames is independent.
Latents are the means of its posterior, normalised per channel by the statistics in its ``config.json``, as Wan's own
transformers take them. Legend: B batch, F frames, C channels, h w grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamchar.codecs.diffusers_part import build_part, load_part
from streamchar.codecs.fingerprint import fingerprint
from streamchar.codecs.pca_video import check_group
from streamchar.diffusers_folder import wan_vae_layout

CLASS = "AutoencoderKLWan"


class WanVaeCodec(nn.Module):
    """See :class:`streamchar.codecs.protocol.VideoCodec`.

    Args:
        vae: settings of the autoencoder, as its ``config.json`` holds them; its weights come from :meth:`from_folder`
            or a state dict.

    Raises:
        InputError: if diffusers is not installed, or the autoencoder does not code four frames per latent.
    """

    kind = "wan"
    temporal_stride = 4
    vae: Any
    mean: Tensor
    std: Tensor

    def __init__(self, vae: Mapping[str, Any]) -> None:
        super().__init__()
        self.channels, self.spatial_stride = wan_vae_layout(vae, "the stored codec")
        self._settings = dict(vae)
        self.vae = build_part(CLASS, vae)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(vae[f"latents_{name}"]).view(1, -1, 1, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    @classmethod
    def from_folder(cls, folder: str | Path) -> WanVaeCodec:
        """The autoencoder of ``folder``, or of ``vae/`` in the folder of a pipeline, in float32.

        Raises:
            InputError: if there is none, or it cannot be read.
        """
        settings, vae = load_part(folder, CLASS)
        codec = cls(settings)
        codec.vae.load_state_dict(vae.state_dict())
        return codec

    def settings(self) -> dict[str, Any]:
        """What the constructor needs to rebuild this codec."""
        return {"vae": self._settings}

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over kind, settings and weights; taken once, for they do not change."""
        return fingerprint(self.kind, self.settings(), self.state_dict())

    def fit(self, clips: Iterable[Tensor]) -> WanVaeCodec:
        """Nothing to do: it is trained."""
        return self

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """(B, 1 + 4 n, 3, H, W) float in [0, 1] -> (B, C, 1 + n, h, w).

        Raises:
            InputError: if the frame count is not 1 + 4 n or a side is no multiple of the stride.
        """
        check_group(frames, self.spatial_stride)
        x = frames.to(self.mean).transpose(1, 2) * 2 - 1  # (B, 3, F, H, W)
        # One group at a time bounds the memory.
        z = torch.cat([self.vae.encode(group).latent_dist.mode() for group in x.split(1)])
        return (z - self.mean) / self.std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, 1 + n, h, w) -> (B, 1 + 4 n, 3, H, W) float in [0, 1]."""
        z = latents.to(self.mean) * self.std + self.mean
        z = z.to(next(self.vae.decoder.parameters()))
        x = torch.cat([self.vae.decode(group).sample for group in z.split(1)])  # (B, 3, F, H, W) in [-1, 1]
        return x.float().transpose(1, 2) / 2 + 0.5

    def decoding_parts(self) -> list[nn.Module]:
        """The networks that only decode."""
        return [self.vae.decoder, self.vae.post_quant_conv]
