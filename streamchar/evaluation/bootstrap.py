"""95 % intervals of a measure by the percentile bootstrap over clips (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.95


def interval(values: NDArray[np.floating], statistic: Callable[[NDArray[np.float64]], float] | None = None, *,
             resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Low and high of the statistic when clips are drawn anew with replacement.

    Clips with a nan are left out; with one clip both ends are its value, with none both are nan. Resamples whose
    statistic is nan do not count.

    Args:
        values: (N,) a value per clip, or (N, D) a row per clip.
        statistic: of (N,) or (N, D); the mean over all values where it is not given.
        seed: of the draws; the same seed gives the same interval.
    """
    rows = np.asarray(values, np.float64)
    rows = rows[np.isfinite(rows.reshape(len(rows), -1)).all(1)]
    if not len(rows):
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, len(rows), (resamples, len(rows)))
    found = np.array([np.mean(rows[d]) if statistic is None else statistic(rows[d]) for d in draws])
    found = found[np.isfinite(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.quantile(found, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
