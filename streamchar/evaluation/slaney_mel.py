"""Mel power spectra as librosa makes them, which is what published speech networks were trained on.

Frames are centred on multiples of ``hop`` (zeros beyond the ends), windowed with a periodic Hann window of ``size``
samples; the filters are triangles on Slaney's scale (linear below 1 kHz, logarithmic above), each of unit area in Hz.
The codec's own mel frames (``codecs/mel_spectrum.py``) lie and weigh differently.

Legend: S samples, J frames, K frequency bins, M mel bands.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

LINEAR_HZ = 200 / 3
"""Hz per mel below the corner."""
CORNER_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27


def mel_power(wave: NDArray[np.floating], sample_rate: int, size: int, hop: int, mels: int) -> NDArray[np.float64]:
    """(S,) -> (J, M) power per band with J = 1 + (S + 2 (size // 2) - size) // hop; at least one frame."""
    padded = np.pad(np.asarray(wave, np.float64), size // 2)
    padded = np.pad(padded, (0, max(size - len(padded), 0)))
    frames = torch.from_numpy(padded).unfold(0, size, hop) * torch.hann_window(size, dtype=torch.float64)
    power = torch.fft.rfft(frames).abs().square().numpy()  # (J, K)
    return np.asarray(power @ mel_filters(sample_rate, size, mels).T)


def mel_filters(sample_rate: int, size: int, mels: int) -> NDArray[np.float64]:
    """(M, K) triangles from 0 Hz to half the rate; K = size // 2 + 1 bins at multiples of sample_rate / size."""
    bins = np.arange(size // 2 + 1) * sample_rate / size
    edges = to_hz(np.linspace(0, to_mel(sample_rate / 2), mels + 2))
    width = np.diff(edges)
    rising = (bins - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins) / width[1:, None]
    return np.maximum(np.minimum(rising, falling), 0) * (2 / (edges[2:] - edges[:-2]))[:, None]


def to_mel(hz: float) -> float:
    """Hz to mels on Slaney's scale."""
    if hz < CORNER_HZ:
        return hz / LINEAR_HZ
    return float(CORNER_HZ / LINEAR_HZ + np.log(hz / CORNER_HZ) / LOG_STEP)


def to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mels on Slaney's scale to Hz."""
    corner = CORNER_HZ / LINEAR_HZ
    return np.where(mels < corner, mels * LINEAR_HZ, CORNER_HZ * np.exp(LOG_STEP * (mels - corner)))
