"""How much fine detail a face shows, whatever its size and contrast.

The face is brought to 128 pixels; detail is what a small blur takes away, in shares of the picture's own contrast. A
picture that was blurred or enlarged has lost it. (After Crete et al., "The blur effect", 2007: blur again and compare.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDE = 128
FACE = 0.6
"""The middle of the crop that is looked at: the face without its surroundings."""


def sharpness(frame: NDArray[np.uint8]) -> float:
    """(H, W, 3) uint8, a crop around a face -> standard deviation of fine detail over that of the whole, 0 to 1."""
    from PIL import Image

    height, width = frame.shape[:2]
    dy, dx = round(height * (1 - FACE) / 2), round(width * (1 - FACE) / 2)
    middle = Image.fromarray(frame[dy:height - dy, dx:width - dx]).convert("L")
    grey = np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float64)
    blurred = grey
    for axis in (0, 1):
        blurred = (np.roll(blurred, 1, axis) + blurred + np.roll(blurred, -1, axis)) / 3
    inner = (slice(1, -1), slice(1, -1))
    return float(np.std((grey - blurred)[inner])) / max(float(np.std(grey[inner])), 1.0)
