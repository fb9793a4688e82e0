"""Cepstra of speech as the Python package ``python_speech_features`` 0.6 makes them by default, which is what the
field's SyncNet was trained on.

Rectangular windows of 25 ms every 10 ms after pre-emphasis, 26 triangles from 0 Hz to half the rate on the HTK mel
scale with corners rounded down to bins of a 512-point transform, DCT-II of the log energies, 13 coefficients, liftered,
the first replaced by the log of the frame's energy. Samples are scaled as 16-bit integers. torchaudio's MFCC differs in
all of window, filters, lifter and energy. Compared with that package on noise, silence and speech: equal to 1e-11.

Legend: S samples, J frames, K frequency bins, M mel bands.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COEFFICIENTS, BANDS, BINS = 13, 26, 512
WINDOW_S, HOP_S = 0.025, 0.01
PRE_EMPHASIS, LIFTER = 0.97, 22
SMALLEST = float(np.finfo(float).eps)
"""Takes the place of zero energies, whose logarithm does not exist."""


def speech_mfcc(sound: NDArray[np.floating], sample_rate: int) -> NDArray[np.float64]:
    """Sound (S,) in [-1, 1] -> (13, J), J = 1 + ceil((S - window) / hop); zeros beyond the end."""
    wave = np.round(np.clip(np.asarray(sound, np.float64), -1, 32767 / 32768) * 32768)  # as a 16-bit file holds it
    wave = np.append(wave[:1], wave[1:] - PRE_EMPHASIS * wave[:-1])
    window, hop = round(WINDOW_S * sample_rate), round(HOP_S * sample_rate)
    count = 1 + max(-(-(len(wave) - window) // hop), 0)
    wave = np.pad(wave, (0, max((count - 1) * hop + window - len(wave), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop][:count]
    power = np.abs(np.fft.rfft(frames, BINS)) ** 2 / BINS  # (J, K)
    energy = _positive(power.sum(1))
    bands = np.log(_positive(power @ mel_triangles(sample_rate).T))  # (J, M)
    at = np.arange(COEFFICIENTS)[:, None] * (2 * np.arange(BANDS) + 1) * np.pi / (2 * BANDS)
    scale = np.where(np.arange(COEFFICIENTS) == 0, np.sqrt(1 / BANDS), np.sqrt(2 / BANDS))
    lift = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    cepstra = (lift * scale)[:, None] * (np.cos(at) @ bands.T)
    cepstra[0] = np.log(energy)
    return cepstra


def mel_triangles(sample_rate: int) -> NDArray[np.float64]:
    """(M, K) triangles with corners at whole bins, each of height 1."""
    mels = np.linspace(0, 2595 * np.log10(1 + sample_rate / 2 / 700), BANDS + 2)
    corner = np.floor((BINS + 1) * 700 * (10 ** (mels / 2595) - 1) / sample_rate)
    k = np.arange(BINS // 2 + 1)
    left, centre, right = corner[:-2, None], corner[1:-1, None], corner[2:, None]
    rising = (k - left) / np.maximum(centre - left, 1) * ((left <= k) & (k < centre))
    falling = (right - k) / np.maximum(right - centre, 1) * ((centre <= k) & (k < right))
    return rising + falling


def _positive(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x == 0, SMALLEST, x)
