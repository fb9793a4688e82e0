"""Bringing a clip to the run's picture size, frame rate and sample rate, and past its end into quiet."""

from __future__ import annotations

from math import gcd

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

EDGE_S = 0.12
"""Seconds after the last word that still belong to it (mouth closing, room answering)."""
MIN_QUIET_S = 0.3
"""Real quiet that suffices to be played to and fro; shorter ends are prolonged by a still picture and faint noise."""
FLOOR_RMS = 1e-3
"""Level of the faint noise: -60 dB of full scale, as recognisers and codecs stumble over digital silence."""


def fit_frames(frames: Tensor, size: int) -> Tensor:
    """(F, 3, H, W) uint8 -> (F, 3, size, size) uint8: centre square, resized with antialiasing."""
    height, width = frames.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    frames = frames[..., top:top + side, left:left + side]
    if side == size:
        return frames
    return F.interpolate(frames.float(), size=(size, size), mode="bilinear", antialias=True,
                         align_corners=False).round_().clamp_(0, 255).to(torch.uint8)


def fit_rate(frames: Tensor, fps: float, wanted: float) -> Tensor:
    """Nearest frames at another frame rate, by time (frame i covers [i, i + 1) / fps)."""
    if abs(fps - wanted) < 1e-6:
        return frames
    count = max(int(len(frames) / fps * wanted + 1e-6), 1)
    at = ((torch.arange(count, dtype=torch.float64) + 0.5) / wanted * fps).long().clamp_(max=len(frames) - 1)
    return frames[at]


def fit_wave(wave: Tensor, rate: int, wanted: int) -> Tensor:
    """(S,) at another sample rate, polyphase-filtered."""
    if rate == wanted:
        return wave
    from scipy.signal import resample_poly

    common = gcd(rate, wanted)
    return torch.from_numpy(resample_poly(wave.numpy(), wanted // common, rate // common).astype(np.float32))


def to_and_fro(first: int, count: int, wanted: int) -> np.ndarray:
    """Indices that go on from ``first + count - 1``: backwards to ``first``, forwards again, and so on."""
    if count < 2:
        return np.full(wanted, first + count - 1)
    period = 2 * (count - 1)
    step = (np.arange(1, wanted + 1) + (count - 1)) % period
    return first + np.where(step < count, step, period - step)


def extend_frames(frames: Tensor, quiet_from: float, fps: float, total: int) -> Tensor:
    """Prolong to ``total`` frames: the real quiet after ``quiet_from`` seconds to and fro, else the last frame."""
    missing = total - len(frames)
    if missing <= 0:
        return frames[:total]
    first = _quiet_start(quiet_from, fps, len(frames))
    return torch.cat([frames, frames[torch.from_numpy(to_and_fro(first, len(frames) - first, missing))]])


def extend_wave(wave: Tensor, quiet_from: float, rate: int, total: int, seed: int) -> Tensor:
    """Prolong to ``total`` samples in the same way: the real quiet to and fro, else faint noise."""
    missing = total - len(wave)
    if missing <= 0:
        return wave[:total]
    first = _quiet_start(quiet_from, rate, len(wave))
    if len(wave) - first > 1:
        return torch.cat([wave, wave[torch.from_numpy(to_and_fro(first, len(wave) - first, missing))]])
    noise = np.random.default_rng(seed).standard_normal(missing).astype(np.float32) * FLOOR_RMS
    return torch.cat([wave, torch.from_numpy(noise)])


def _quiet_start(quiet_from: float, rate: float, length: int) -> int:
    """First frame or sample of the real quiet at the end; the last one where the quiet is too short."""
    begin = round((quiet_from + EDGE_S) * rate)
    return begin if length - begin >= MIN_QUIET_S * rate else length - 1
