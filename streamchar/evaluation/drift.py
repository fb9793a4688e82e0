"""Drift of the picture over a long stream [ours; the paper's formula is not published].

The stream is cut into windows of equal length; each window's feature is the mean appearance of its frames
(``identity.appearance``). With d_k the distance of window k's feature to window 0's at time t_k (middle of the window,
relative to window 0's), the drift is

    slope = least-squares slope of d_k over t_k, in distance per minute        last = d_last
    gain  = last - d_1      (0 for a picture that merely sways, whose d_k is level from the first comparison on)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamchar.evaluation.identity import appearance, distance


@dataclass(frozen=True)
class DriftScore:
    """``slope`` per minute, ``last`` and ``gain`` as in the module's formula, and the curve (window middle s, d)."""

    slope: float
    last: float
    gain: float
    curve: tuple[tuple[float, float], ...]


def drift_score(frames: NDArray[np.uint8], fps: float, window_s: float) -> DriftScore:
    """Drift of frames (F, H, W, 3); nan with fewer than three whole windows."""
    size = max(round(window_s * fps), 1)
    windows = [appearance(frames[i:i + size]).mean(0) for i in range(0, len(frames) - size + 1, size)]
    nan = float("nan")
    if len(windows) < 3:
        return DriftScore(nan, nan, nan, ())
    d = distance(np.stack(windows[1:]), windows[0])
    t = np.arange(1, len(windows)) * size / fps
    return DriftScore(slope_per_minute(np.stack([t, d], 1)), float(d[-1]), float(d[-1] - d[0]),
                      tuple(zip(t.tolist(), d.tolist(), strict=True)))


def slope_per_minute(curve: NDArray[np.float64]) -> float:
    """Least-squares slope of (N, 2) seconds and distances; nan where all are of one time."""
    t, d = curve.T
    return float(np.polyfit(t / 60, d, 1)[0]) if np.ptp(t) else float("nan")
