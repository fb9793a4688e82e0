"""The embedded video codec: two patch PCAs, fitted in closed form in seconds.

A group of ``1 + 4 n`` frames is independent of every other: its first frame is coded by a PCA on 8x8x3 patches, each
following group of four frames by a PCA on 4x8x8x3 patches. Legend: B batch, G groups of four, C channels, h w grid.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from streamchar.codecs.fingerprint import fingerprint
from streamchar.codecs.pca import Components, LinearCode, Moments
from streamchar.errors import InputError

PATCH = 8
STRIDE = 4
PICTURES_PER_CLIP = 8


class PcaVideoCodec(nn.Module):
    """See :class:`streamchar.codecs.protocol.VideoCodec`. Latents have a mean variance of 1.

    Args:
        channels: C, the same for the first frame and the groups.
        sigma_floor, whiten: how channels are divided, see :meth:`streamchar.codecs.pca.Components.scale`.
    """

    kind = "pca"
    spatial_stride = PATCH
    temporal_stride = STRIDE

    def __init__(self, channels: int = 16, sigma_floor: float = 0.02,
                 whiten: float = 0.5) -> None:
        super().__init__()
        self.channels, self.sigma_floor, self.whiten = channels, sigma_floor, whiten
        self.picture = LinearCode(3 * PATCH * PATCH, channels)
        self.group = LinearCode(STRIDE * 3 * PATCH * PATCH, channels)

    def settings(self) -> dict[str, Any]:
        """What the constructor needs to rebuild this codec."""
        return {"channels": self.channels, "sigma_floor": self.sigma_floor, "whiten": self.whiten}

    @property
    def fingerprint(self) -> str:
        """sha256 over kind, settings and weights."""
        return fingerprint(self.kind, self.settings(), self.state_dict())

    def fit(self, clips: Iterable[Tensor]) -> PcaVideoCodec:
        """Fit on clips (F, 3, H, W), uint8 or float in [0, 1]; eight evenly spread groups of each are used.

        Raises:
            DataError: if there are no clips, or values are not finite.
        """
        pictures, groups = Moments(3 * PATCH * PATCH), Moments(STRIDE * 3 * PATCH * PATCH)
        for frames in clips:
            starts = torch.linspace(0, max(len(frames) - STRIDE, 0), PICTURES_PER_CLIP).long().unique()
            block = torch.stack([frames[s + torch.arange(STRIDE).clamp(max=len(frames) - 1 - int(s))] for s in starts])
            block = as_unit(block)  # (N, 4, 3, H, W)
            pictures.add(_patches(block[:, :1]).flatten(0, -2))
            groups.add(_patches(block).flatten(0, -2))
        picture = pictures.components(self.channels)
        self.picture.store(picture, self.sigma_floor, self.whiten)
        self.group.store(_same_sign(groups.components(self.channels), picture), self.sigma_floor, self.whiten)
        return self

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """(B, 1 + 4 n, 3, H, W) float in [0, 1] -> (B, C, 1 + n, H/8, W/8).

        Raises:
            InputError: if the frame count is not 1 + 4 n or a side is no multiple of 8.
        """
        check_group(frames)
        x = frames.to(self.picture.mean)
        coded = [self.picture(_patches(x[:, :1]))[:, None]]  # (B, 1, h, w, C)
        if frames.shape[1] > 1:
            groups = x[:, 1:].unflatten(1, (-1, STRIDE))  # (B, G, 4, 3, H, W)
            coded.append(self.group(_patches(groups)))
        return torch.cat(coded, 1).permute(0, 4, 1, 2, 3).contiguous()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, 1 + n, h, w) -> (B, 1 + 4 n, 3, 8 h, 8 w) float in [0, 1]."""
        z = latents.to(self.picture.mean).permute(0, 2, 3, 4, 1)  # (B, 1 + G, h, w, C)
        frames = [_pictures(self.picture.inverse(z[:, 0]), 1)]
        if z.shape[1] > 1:
            frames.append(_pictures(self.group.inverse(z[:, 1:]), STRIDE).flatten(1, 2))
        return torch.cat(frames, 1).clamp(0, 1)


def as_unit(frames: Tensor) -> Tensor:
    """uint8 pictures as float in [0, 1]; floats pass."""
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames.float()


def check_group(frames: Tensor, stride: int = PATCH) -> None:
    """Frames (B, 1 + 4 n, 3, H, W) with sides that are multiples of ``stride``.

    Raises:
        InputError: if they are not.
    """
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise InputError(f"frames must be (B, F, 3, H, W), got {tuple(frames.shape)}")
    f, h, w = frames.shape[1], frames.shape[3], frames.shape[4]
    if (f - 1) % STRIDE:
        raise InputError(f"a group has 1 + {STRIDE} n frames, got {f}; cut the clip into chunks of the clock")
    if h % stride or w % stride:
        raise InputError(f"frame sides must be multiples of {stride}, got {h}x{w}; resize the clips (data.size)")


def _same_sign(groups: Components, pictures: Components) -> Components:
    """Signs such that a group component points like the picture component of its rank: one meaning per channel."""
    still = groups.basis.unflatten(1, (STRIDE, -1)).mean(1)  # (C, 192)
    sign = torch.where((still * pictures.basis).sum(1) < 0, -1.0, 1.0)
    return Components(groups.mean, groups.basis * sign[:, None], groups.sigma)


def _patches(frames: Tensor) -> Tensor:
    """(..., F, 3, H, W) -> (..., h, w, F*3*8*8)."""
    x = frames.unflatten(-1, (-1, PATCH)).unflatten(-3, (-1, PATCH))  # (..., F, 3, h, 8, w, 8)
    return x.movedim((-4, -2), (-6, -5)).flatten(-4)


def _pictures(patches: Tensor, frames: int) -> Tensor:
    """(..., h, w, F*3*8*8) -> (..., F, 3, H, W)."""
    x = patches.unflatten(-1, (frames, 3, PATCH, PATCH))  # (..., h, w, F, 3, 8, 8)
    return x.movedim((-6, -5), (-4, -2)).flatten(-4, -3).flatten(-2)
