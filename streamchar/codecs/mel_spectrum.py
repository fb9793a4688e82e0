"""Log-mel spectra of speech at 16 kHz: frames of 40 ms every 10 ms, each centred on the 10 ms it stands for.

Legend: B batch, S samples, J frames, K frequency bins, M mel bands.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE_RATE = 16000
HOP = 160
WINDOW = 640
BINS = WINDOW // 2 + 1
EDGE = (WINDOW - HOP) // 2
"""Samples that a frame reaches beyond its own hop on either side."""
SLAB = 4096
"""Frames transformed at a time, which bounds the memory of long sounds."""


def hann() -> Tensor:
    """(640,) periodic Hann window."""
    return torch.hann_window(WINDOW, periodic=True)


def mel_filters(mels: int, low: float = 0.0, high: float = SAMPLE_RATE / 2) -> Tensor:
    """(M, K) triangular filters, each summing to 1, on the HTK mel scale."""
    top = 2595 * torch.log10(1 + torch.tensor([low, high], dtype=torch.float64) / 700)
    points = 700 * (10 ** (torch.linspace(float(top[0]), float(top[1]), mels + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, SAMPLE_RATE / 2, BINS, dtype=torch.float64)
    # A triangle narrower than a bin would miss all of them.
    width = SAMPLE_RATE / WINDOW
    left = torch.minimum(points[:-2], points[1:-1] - width)
    right = torch.maximum(points[2:], points[1:-1] + width)
    centre = points[1:-1]
    rising = (bins - left[:, None]) / (centre - left)[:, None]
    falling = (right[:, None] - bins) / (right - centre)[:, None]
    filters = torch.minimum(rising, falling).clamp(min=0)
    return (filters / filters.sum(1, keepdim=True)).float()


def magnitudes(wave: Tensor, window: Tensor) -> Tensor:
    """(B, S) -> (B, floor(S/160), K) magnitude spectra; the sound is mirrored beyond its ends."""
    frames = wave.shape[1] // HOP
    padded = F.pad(wave[:, None], (EDGE, EDGE), mode="reflect")[:, 0]
    slabs = []
    for first in range(0, frames, SLAB):
        count = min(SLAB, frames - first)
        part = padded[:, first * HOP:(first + count - 1) * HOP + WINDOW]
        slabs.append(torch.fft.rfft(part.unfold(1, WINDOW, HOP) * window).abs())
    return torch.cat(slabs, 1)
