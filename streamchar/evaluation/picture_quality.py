"""Sharpness and colour of frames against the reference picture that they were made from [ours].

    sharpness = var(Laplacian of luma) / var(luma)          of one picture; no unit, falls with blur, not with contrast
    sharpness ratio = mean over frames / the reference's    1 = as sharp; noise and block edges raise it as well
    colour shift = mean over frames of |mean Lab of the frame - mean Lab of the reference|  CIE 1976, about 2 is seen

Real clips (GRID, 160x160) against their first frame: ratio 1.03, shift .5. A Gaussian blur with a standard deviation of
half a pixel leaves .63 of the sharpness, of one pixel .18; two clips of one speaker lie 12 apart in colour.

The Laplacian is the difference to the four neighbours. Lab is taken pixel by pixel (sRGB, white D65), then averaged.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError
from streamchar.evaluation.luma import luma

XYZ_OF_RGB = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]])
"""Linear sRGB to XYZ (IEC 61966-2-1)."""


def sharpness(picture: NDArray[np.uint8]) -> float:
    """Sharpness of one picture (H, W, 3), at least 3x3; nan where it is of one grey."""
    y = luma(picture)
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    return float(laplacian.var() / y.var()) if y.var() > 1e-9 else float("nan")


def sharpness_ratio(frames: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Mean sharpness of frames (F, H, W, 3) over that of a reference (H, W, 3); nan where the reference has none.

    Raises:
        InputError: if the sizes differ, since sharpness depends on the size.
    """
    if frames.shape[1:] != reference.shape:
        raise InputError(f"sharpness compares pictures of one size, got frames {frames.shape[1:]} and a reference "
                         f"{reference.shape}; resize the reference to the frames")
    real = sharpness(reference)
    return float(np.mean([sharpness(f) for f in frames])) / real if len(frames) and real > 0 else float("nan")


def colour_shift(frames: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Mean distance in Lab of the mean colours of frames (F, H, W, 3) from that of a reference (H, W, 3)."""
    goal = mean_lab(reference)
    return float(np.mean([np.linalg.norm(mean_lab(f) - goal) for f in frames])) if len(frames) else float("nan")


def mean_lab(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean CIE Lab (3,) of the pixels of a picture (..., 3) in sRGB."""
    return lab(picture).reshape(-1, 3).mean(0)


def lab(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(..., 3) sRGB uint8 -> (..., 3) CIE Lab: L 0 to 100, a and b about -100 to 100."""
    share = picture.astype(np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ XYZ_OF_RGB.T / XYZ_OF_RGB.sum(1)  # relative to white
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
