"""Every clip equally loud: ITU-R BS.1770 loudness, and the gain that reaches it below the peak limit."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PEAK_DB = -1.0
SHORTEST_S = 0.4
"""One gating block of BS.1770."""
FULL_SCALE = 0.999
"""Samples at least so large are clipped."""


def loudness(wave: Tensor, rate: int) -> float:
    """(S,) in [-1, 1] -> LUFS; -inf for silence or less than one gating block."""
    from torchaudio.functional import loudness as measure

    if len(wave) < SHORTEST_S * rate or not bool(wave.any()):
        return -math.inf
    value = float(measure(wave[None].double(), rate))
    return value if math.isfinite(value) else -math.inf


def normalise(wave: Tensor, rate: int, target: float | None) -> tuple[Tensor, float]:
    """The sound at ``target`` LUFS, or as near as its peak allows, and the gain in dB; silence stays as it is."""
    now = loudness(wave, rate)
    if target is None or not math.isfinite(now):
        return wave, 0.0
    room = PEAK_DB - 20 * math.log10(float(wave.abs().max()))
    gain = min(target - now, room)
    return wave * 10 ** (gain / 20), gain


def clipped_share(wave: Tensor) -> float:
    """Share of samples at full scale, 0 to 1: of runs of at least two, since a lone peak may be honest."""
    full = wave.abs() >= FULL_SCALE
    runs = torch.zeros_like(full)
    runs[1:] = full[1:] & full[:-1]
    runs[:-1] |= full[1:] & full[:-1]
    return float(runs.float().mean()) if len(wave) else 0.0
