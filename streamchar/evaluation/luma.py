"""Luma of pictures (ITU-R BT.601 weights), in grey levels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WEIGHTS = (0.299, 0.587, 0.114)


def luma(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(..., H, W, 3) uint8 -> (..., H, W) in [0, 255]."""
    return frames.astype(np.float64) @ np.array(WEIGHTS)
