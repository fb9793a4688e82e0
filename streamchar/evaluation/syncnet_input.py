"""What a SyncNet of ours sees and hears: the mouth half of the picture in grey, and log-mel windows of 0.2 s.

Both choices were measured on GRID (900 clips of 160 px, 50 held out, 500 steps, 40 x 48 pixels to the network); the
contrastive loss is that of a window against the other windows of its own clip, in nats:

| the network sees | held-out loss | confidence, true clips | with another clip's sound |
|---|---|---|---|
| middle of the lower half, grey | 2.33 | .37 | .16 |
| the same in colour, at one and a half times the cost | 2.50 | .35 | .15 |
| the whole lower half, grey | 2.68 | .29 | .15 |

Legend: F frames, N windows, M mel bands, J 10 ms hops, h and w the picture's sides in pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from streamchar.codecs.mel_spectrum import HOP, SAMPLE_RATE, hann, magnitudes, mel_filters
from streamchar.errors import InputError
from streamchar.evaluation.luma import WEIGHTS
from streamchar.evaluation.mouth import Region
from streamchar.evaluation.syncnet_offsets import FRAMES

HOPS = 20
"""Hops of sound of one window: 0.2 s, five frames at 25 fps."""
LEVEL_FLOOR = 1e-3
"""Added to mel magnitudes before the logarithm."""
BLOCK = 512
"""Frames resized at a time, which bounds the memory of long streams."""


def mouth_pictures(frames: NDArray[np.uint8], region: Region, height: int, width: int) -> Tensor:
    """Frames (F, H, W, 3) -> grey pictures (F, h, w) uint8 of ``region``, shares of the picture.

    Raises:
        InputError: when the frames are no uint8 RGB pictures.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise InputError(f"frames have shape {frames.shape} and type {frames.dtype}, expected (F, H, W, 3) uint8; "
                         "streamchar.streaming.reading.read_clip gives them")
    h, w = frames.shape[1:3]
    x0, y0, x1, y1 = round(region[0] * w), round(region[1] * h), round(region[2] * w), round(region[3] * h)
    if x1 <= x0 or y1 <= y0:
        raise InputError(f"the region {region} of pictures of {w} x {h} pixels is empty; use larger pictures or "
                         "another syncnet.region")
    out = []
    for first in range(0, len(frames), BLOCK):
        part = torch.from_numpy(np.ascontiguousarray(frames[first:first + BLOCK, y0:y1, x0:x1]))
        grey = (part.float() @ torch.tensor(WEIGHTS))[:, None]
        small = F.interpolate(grey, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
        out.append(small[:, 0].round().clamp(0, 255).byte())
    return torch.cat(out)


def log_mel(sound: NDArray[np.floating], sample_rate: int, mels: int) -> Tensor:
    """Sound (S,) at 16 kHz -> (M, J) natural logarithm of mel magnitudes, one column per 10 ms.

    Raises:
        InputError: when the sound is not mono at 16 kHz, or shorter than a window.
    """
    if sample_rate != SAMPLE_RATE:
        raise InputError(f"SyncNet hears sound at {SAMPLE_RATE} Hz, got {sample_rate}; resample it, or read it with "
                         f"read_sound(path, {SAMPLE_RATE})")
    if sound.ndim != 1 or len(sound) < HOPS * HOP:
        raise InputError(f"sound has shape {sound.shape}, expected mono samples (S,) of at least {HOPS * HOP}; "
                         "use longer clips with a sound track")
    wave = torch.from_numpy(np.ascontiguousarray(sound, np.float32))
    return torch.log(magnitudes(wave[None], hann())[0] @ mel_filters(mels).T + LEVEL_FLOOR).T.contiguous()


def window_count(frames: int, hops: int, fps: float) -> int:
    """Windows of five frames that have all their pictures and (but for half a hop) all their sound; may be <= 0."""
    return min(frames, int((hops + 0.5) / 100 * fps)) - FRAMES + 1


def picture_windows(pictures: Tensor, first: Tensor) -> Tensor:
    """(F, h, w) -> (N, 5, h, w), each beginning at its frame of ``first`` (N,)."""
    return pictures[first[:, None] + torch.arange(FRAMES)]


def sound_windows(mel: Tensor, first: Tensor, fps: float) -> Tensor:
    """(M, J) -> (N, M, 20): the 0.2 s of sound in the middle of the five frames that begin at ``first`` (N,)."""
    start = ((first + FRAMES / 2) * (100 / fps) - HOPS / 2).round().long()
    hops = (start[:, None] + torch.arange(HOPS)).clamp(0, mel.shape[1] - 1)
    return mel.T[hops].mT
