"""Shots: a recording is cut where the colours of the picture change from one frame to the next.

Each frame is described by the colour histograms of its four quarters; a cut is a distance that is large in itself and
stands out among its neighbours, so that a flash or a fast pan is none. (Histogram comparison: Zhang, Kankanhalli,
Smoliar, "Automatic partitioning of full-motion video", 1993.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 8
STEP = 3
"""Every so many-th pixel each way is counted."""
NEIGHBOURS = 6
STANDS_OUT = 3.0
SHORTEST = 3
"""Frames: two cuts nearer to each other are one change that takes several frames."""


class ShotDetector:
    """Shown one frame after another, says where the shots begin.

    Args:
        threshold: share of the colours, 0 to 1, that changes at a cut.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self.distances: list[float] = []
        self._last: NDArray[np.float64] | None = None

    def see(self, frame: NDArray[np.uint8]) -> None:
        """The next frame (H, W, 3)."""
        now = histogram(frame)
        self.distances.append(0.0 if self._last is None else float(np.abs(now - self._last).sum() / 2))
        self._last = now

    def shots(self) -> list[tuple[int, int]]:
        """(first, stop) frame numbers of all shots so far, in order, without gaps."""
        d = np.asarray(self.distances)
        cuts = [0]
        for i in np.flatnonzero(d > self.threshold):
            around = np.concatenate([d[max(i - NEIGHBOURS, 1):i], d[i + 1:i + 1 + NEIGHBOURS]])
            if d[i] > STANDS_OUT * (np.median(around) if len(around) else 0.0) and i - cuts[-1] >= SHORTEST:
                cuts.append(int(i))
        return list(zip(cuts, [*cuts[1:], len(d)], strict=True)) if len(d) else []


def histogram(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W, 3) uint8 -> (4 * 3 * BINS,), summing to 1: each channel of each quarter."""
    half_h, half_w = frame.shape[0] // 2, frame.shape[1] // 2
    parts = []
    for rows in (slice(0, half_h), slice(half_h, None)):
        for columns in (slice(0, half_w), slice(half_w, None)):
            quarter = frame[rows, columns][::STEP, ::STEP].reshape(-1, 3) // (256 // BINS)
            parts += [np.bincount(quarter[:, c], minlength=BINS) / len(quarter) for c in range(3)]
    return np.concatenate(parts) / len(parts)
