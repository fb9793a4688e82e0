"""Video through a pretrained image autoencoder: every frame by TAEF2, four frames' latents stacked per video latent.

The first frame of a group has 32 values per position, each further group of four frames 128; both are brought to C
channels by a PCA fitted in closed form (at C = 128 nothing is lost). Legend: B batch, F frames, G groups, h w grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamchar.codecs.fingerprint import fingerprint
from streamchar.codecs.pca import LinearCode, Moments
from streamchar.codecs.pca_video import STRIDE, as_unit, check_group
from streamchar.codecs.tae import LATENT, tae_decoder, tae_encoder
from streamchar.errors import InputError

GROUPS_PER_CLIP = 4
FRAMES_AT_ONCE = 32
"""Frames that go through the network together, which bounds its memory."""


class Taef2Codec(nn.Module):
    """See :class:`streamchar.codecs.protocol.VideoCodec`. The weights come from ``load_files`` or a state dict.

    Args:
        channels: C, at most 128.
        sigma_floor, whiten: how channels are divided, see :meth:`streamchar.codecs.pca.Components.scale`.
    """

    kind = "taef2"
    spatial_stride = 8
    temporal_stride = STRIDE

    def __init__(self, channels: int = STRIDE * LATENT, sigma_floor: float = 0.02,
                 whiten: float = 0.5) -> None:
        super().__init__()
        self.channels, self.sigma_floor, self.whiten = channels, sigma_floor, whiten
        self.encoder, self.decoder = tae_encoder(), tae_decoder()
        self.picture = LinearCode(LATENT, channels)
        self.group = LinearCode(STRIDE * LATENT, channels)
        self.requires_grad_(False)

    def load_files(self, folder: str | Path) -> None:
        """Read ``taef2_encoder.pth`` and ``taef2_decoder.pth``.

        Raises:
            InputError: if a file is missing or is not that network.
        """
        for name in ("encoder", "decoder"):
            path = Path(folder) / f"taef2_{name}.pth"
            if not path.is_file():
                raise InputError(f"{path} does not exist; set codec.video.path to the folder of the taef2 weights")
            try:
                getattr(self, name).load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            except Exception as error:
                raise InputError(f"{path} is not a TAEF2 {name}: {error}") from error

    def settings(self) -> dict[str, Any]:
        """What the constructor needs to rebuild this codec."""
        return {"channels": self.channels, "sigma_floor": self.sigma_floor, "whiten": self.whiten}

    @property
    def fingerprint(self) -> str:
        """sha256 over kind, settings and weights."""
        return fingerprint(self.kind, self.settings(), self.state_dict())

    @torch.no_grad()
    def fit(self, clips: Iterable[Tensor]) -> Taef2Codec:
        """Fit both PCAs on clips (F, 3, H, W), uint8 or float in [0, 1]; four evenly spread groups of each are used.

        Raises:
            DataError: if there are no clips, or values are not finite.
        """
        pictures, groups = Moments(LATENT), Moments(STRIDE * LATENT)
        for frames in clips:
            for start in torch.linspace(0, max(len(frames) - STRIDE, 0), GROUPS_PER_CLIP).long().unique():
                index = (start + torch.arange(STRIDE)).clamp(max=len(frames) - 1)
                latents = self._encode_frames(as_unit(frames[index]))  # (4, h, w, 32)
                pictures.add(latents[:1].flatten(0, 2))
                groups.add(_stack(latents).flatten(0, 2))
        self.picture.store(pictures.components(min(self.channels, LATENT)), self.sigma_floor, self.whiten)
        self.group.store(groups.components(self.channels), self.sigma_floor, self.whiten)
        return self

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """(B, 1 + 4 n, 3, H, W) float in [0, 1] -> (B, C, 1 + n, H/8, W/8).

        Raises:
            InputError: if the frame count is not 1 + 4 n or a side is no multiple of 8.
        """
        check_group(frames)
        x = self._encode_frames(frames.to(self.picture.mean).flatten(0, 1)).unflatten(0, frames.shape[:2])
        coded = [self.picture(x[:, :1])]
        if x.shape[1] > 1:
            coded.append(self.group(_stack(x[:, 1:])))
        return torch.cat(coded, 1).permute(0, 4, 1, 2, 3).contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, 1 + n, h, w) -> (B, 1 + 4 n, 3, 8 h, 8 w) float in [0, 1]."""
        z = latents.to(self.picture.mean).permute(0, 2, 3, 4, 1)  # (B, 1 + G, h, w, C)
        frames = [self.picture.inverse(z[:, :1])]
        if z.shape[1] > 1:
            stacked = self.group.inverse(z[:, 1:]).unflatten(-1, (STRIDE, LATENT))  # (B, G, h, w, 4, 32)
            frames.append(stacked.movedim(-2, 2).flatten(1, 2))
        x = torch.cat(frames, 1)  # (B, F, h, w, 32)
        flat = x.flatten(0, 1).permute(0, 3, 1, 2).to(next(self.decoder.parameters()))
        pictures = torch.cat([self.decoder(part) for part in flat.split(FRAMES_AT_ONCE)]).float()
        return pictures.clamp(0, 1).unflatten(0, x.shape[:2])

    def decoding_parts(self) -> list[nn.Module]:
        """The networks that only decode."""
        return [self.decoder]

    def _encode_frames(self, frames: Tensor) -> Tensor:
        """(F, 3, H, W) -> (F, h, w, 32)."""
        parts = [self.encoder(part) for part in frames.split(FRAMES_AT_ONCE)]
        return torch.cat(parts).permute(0, 2, 3, 1)


def _stack(latents: Tensor) -> Tensor:
    """(..., 4 G, h, w, 32) -> (..., G, h, w, 128)."""
    return latents.unflatten(-4, (-1, STRIDE)).movedim(-4, -2).flatten(-2)
