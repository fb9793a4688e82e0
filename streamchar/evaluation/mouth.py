"""Mouth opening of drawn puppets, measured from pixels alone.

Colour rules fail over identities (skins from pale to dark, moustaches, teeth that come and go: correlation .93 on
average but .48 at worst), so the detector is a ridge regression from a small patch around the mouth, relative to its
median colour (the skin), to the opening; fitted in closed form on training characters, blurred copies included so that
soft generated pictures are measured as well, and validated on characters it has never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import DataError

Region = tuple[float, float, float, float]
"""x0, y0, x1, y1 in shares of the picture."""
REGION: Region = (0.34, 0.58, 0.66, 0.84)
"""Where a puppet's mouth is in any pose, for clips that do not say it."""
PATCH = 14
BLURS = (0.0, 0.016, 0.031)
"""Standard deviations, in shares of the picture's width, of the blurs that training frames are shown with."""
RIDGE = 3.0


class MouthDetector(Protocol):
    """Frames (F, H, W, 3) uint8 -> opening (F,), nan where no mouth is seen; the unit is the detector's own."""

    def opening(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]: ...


class PuppetMouth:
    """The fitted detector; opening in the truth's unit, 0 closed to 1 wide open, not clipped.

    Args:
        weights: (3 PATCH^2 + 1,) of the regression, the constant last.
        region: the patch it looks at.
    """

    def __init__(self, weights: NDArray[np.floating], region: Region = REGION) -> None:
        self.weights, self.region = weights, region

    @classmethod
    def fit(cls, clips: Sequence[NDArray[np.uint8]], truth: Sequence[NDArray[np.floating]],
            region: Region = REGION, max_frames: int = 3000) -> PuppetMouth:
        """Fit on clips (F, H, W, 3) of several characters with their true opening per frame (F,).

        Args:
            region: holds the mouth in all frames (see :func:`union`).
            max_frames: frames used at most, evenly spread.

        Raises:
            DataError: with fewer than 50 frames, or truth that does not fit the clips.
        """
        total = sum(len(c) for c in clips)
        if total < 50 or any(len(c) > len(t) for c, t in zip(clips, truth, strict=True)):
            raise DataError(f"the mouth detector got {total} frames with truth, at least 50 expected, one each; "
                            "prepare the puppet data again (stage=prepare)")
        step = max(total // max_frames, 1)
        rows, target = [], []
        for frames, opening in zip(clips, truth, strict=True):
            for blur in BLURS:
                rows.append(patches(frames[::step], region, blur))
                target.append(np.asarray(opening, np.float64)[:len(frames):step])
        x, y = _with_constant(np.concatenate(rows)), np.concatenate(target)
        return cls(np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ y), region)

    def opening(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        return _with_constant(patches(frames, self.region)) @ self.weights


def union(boxes: Sequence[Sequence[float]]) -> Region:
    """The smallest region that holds all of the clips' mouth boxes; the default where there is none."""
    if not boxes:
        return REGION
    low, high = np.min([b[:2] for b in boxes], 0), np.max([b[2:] for b in boxes], 0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def patches(frames: NDArray[np.uint8], region: Region = REGION, blur: float = 0.0) -> NDArray[np.float64]:
    """Mouth patches (F, 3 PATCH^2) relative to their median colour, in [-1, 1]; ``blur`` in shares of the width."""
    from PIL import Image, ImageFilter

    h, w = frames.shape[1:3]
    box = (region[0] * w, region[1] * h, min(region[2], 1.0) * w, min(region[3], 1.0) * h)
    out = np.empty((len(frames), 3 * PATCH * PATCH))
    for i, frame in enumerate(frames):
        image = Image.fromarray(frame)
        if blur:
            image = image.filter(ImageFilter.GaussianBlur(blur * w))
        patch = np.asarray(image.resize((PATCH, PATCH), Image.Resampling.BILINEAR, box), np.float64) / 255
        out[i] = (patch - np.median(patch, axis=(0, 1))).ravel()
    return out


def _with_constant(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)


def agreement(measured: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Correlation of measured with true opening, nan where one does not move."""
    m, t = np.asarray(measured, np.float64), np.asarray(truth, np.float64)[:len(measured)]
    if m.std() < 1e-9 or t.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(m, t)[0, 1])
