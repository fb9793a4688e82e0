"""Lip sync without a network: lag and correlation between mouth opening and the sound's log-energy envelope.

Positive lag = the mouth comes later than the sound. On 25 real clips (GRID, 25 fps, face mesh) the mean correlation
peaks at lag 0 with r = .66; but the same mouths with another clip's sound still reach .43, since all of them are quiet
at both ends. ``detail_s`` takes the moving average off both sides first, so that merely opening while there is sound
counts for nothing: true clips then reach .45, swapped ones .07. Both are reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError

FLOOR_DB = 40.0
DETAIL_S = 0.36
"""Window of the moving average that leaves the movements of syllables."""


@dataclass(frozen=True)
class SyncScore:
    """``lag``: frames at the best correlation (nan when there is no signal); ``best``: that correlation; ``zero``: at
    lag 0; ``margin``: best minus the median over all lags, a confidence; ``curve``: correlation per lag."""

    lag: float
    best: float
    zero: float
    margin: float
    curve: tuple[float, ...]


def log_energy(sound: NDArray[np.floating], frames: int, fps: float, sample_rate: int) -> NDArray[np.float64]:
    """Log-energy in dB of the sound during each frame, (frames,), cut off ``FLOOR_DB`` below the loudest frame."""
    edges = np.round(np.arange(frames + 1) / fps * sample_rate).astype(int)
    padded = np.pad(np.asarray(sound, np.float64), (0, max(int(edges[-1]) - len(sound), 0)))
    total = np.concatenate([[0.0], np.cumsum(padded**2)])
    energy = (total[edges[1:]] - total[edges[:-1]]) / np.maximum(np.diff(edges), 1)
    level = 10 * np.log10(energy + 1e-10)
    return np.maximum(level, level.max() - FLOOR_DB)


def sync_score(mouth: NDArray[np.floating], sound: NDArray[np.floating], fps: float, sample_rate: int,
               max_lag: int = 10, detail_s: float = 0.0) -> SyncScore:
    """Compare mouth opening (F,), any unit, with sound (S,) that begins at the same instant.

    Args:
        max_lag: frames searched each way.
        detail_s: with ``DETAIL_S`` only movements faster than that count; 0 compares everything.

    Raises:
        InputError: when there are fewer than ``4 * max_lag`` frames.
    """
    mouth = np.asarray(mouth, np.float64)
    if len(mouth) < 4 * max_lag:
        raise InputError(f"sync needs at least {4 * max_lag} frames for lags up to {max_lag}, got {len(mouth)}; "
                         "use longer clips or a smaller evaluate.max_lag")
    opening: NDArray[np.floating] = mouth
    level: NDArray[np.floating] = log_energy(sound, len(mouth), fps, sample_rate)
    if detail_s:
        opening, level = without_average(mouth, detail_s * fps), without_average(level, detail_s * fps)
    return curve_score(correlation_curve(opening, level, max_lag))


def without_average(x: NDArray[np.floating], frames: float) -> NDArray[np.floating]:
    """(F,) minus its moving average over about ``frames`` frames, an odd number of them."""
    half = max(round(frames) // 2, 1)
    kernel = np.ones(2 * half + 1) / (2 * half + 1)
    return x - np.convolve(np.pad(x, half, mode="edge"), kernel, "valid")


def correlation_curve(mouth: NDArray[np.floating], level: NDArray[np.floating], max_lag: int) -> NDArray[np.float64]:
    """Pearson correlation per lag from -max_lag to max_lag, (2 max_lag + 1,); nan where one side is constant."""
    out = []
    for lag in range(-max_lag, max_lag + 1):
        a = mouth[max(lag, 0): len(mouth) + min(lag, 0)]
        b = level[max(-lag, 0): len(level) + min(-lag, 0)]
        a, b = a - a.mean(), b - b.mean()
        scale = np.sqrt((a**2).sum() * (b**2).sum())
        out.append(float((a * b).sum() / scale) if scale > 1e-9 else float("nan"))
    return np.array(out)


def curve_score(curve: NDArray[np.float64]) -> SyncScore:
    """Lag and confidence of one curve, or of the mean curve of several clips (steadier than a mean of lags)."""
    reach = len(curve) // 2
    if not np.isfinite(curve).all():
        return SyncScore(float("nan"), float("nan"), float("nan"), 0.0, tuple(curve))
    at = int(curve.argmax())
    return SyncScore(float(at - reach), float(curve[at]), float(curve[reach]), float(curve[at] - np.median(curve)),
                     tuple(float(c) for c in curve))


def mean_score(scores: list[SyncScore]) -> SyncScore:
    """The score of several clips' mean curve; clips without a signal are left out."""
    curves = [s.curve for s in scores if np.isfinite(s.curve).all()]
    if not curves:
        return SyncScore(float("nan"), float("nan"), float("nan"), 0.0, ())
    return curve_score(np.mean(curves, axis=0))
