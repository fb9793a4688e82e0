"""How far a frame is from a reference picture, without a face network: colours and coarse layout.

A frame's feature is its colour layout on a coarse grid (heavily averaged, so that blinks, lips and head sway move it
little) and its colour histogram. The distance has no absolute meaning; :func:`calibrate` measures it between frames of
the same clip and between frames of different characters, and results are printed beside these two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID = 8
BINS = 5
BLOCK = 32
"""Frames looked at together: a window of a long stream would not fit into memory in floats."""


def appearance(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Features (F, D) of frames (F, H, W, 3) uint8: an 8x8 colour layout and a joint histogram of 5^3 colours.

    A pixel is shared among the eight nearest bins, so that a slight change of all colours (a codec's) stays slight. The
    L1 distance of the layout parts and half that of the histogram parts both lie in [0, 1].
    """
    return np.concatenate([_features(frames[i:i + BLOCK]) for i in range(0, len(frames), BLOCK)])


def _features(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    f, h, w, _ = frames.shape
    rows, cols = np.linspace(0, h, GRID + 1).astype(int), np.linspace(0, w, GRID + 1).astype(int)
    values = frames.astype(np.float64) / 255
    sums = np.add.reduceat(np.add.reduceat(values, rows[:-1], axis=1), cols[:-1], axis=2)
    layout = sums / (np.diff(rows)[:, None] * np.diff(cols)[None])[None, ..., None]
    hist = np.stack([soft_histogram(v.reshape(-1, 3)) for v in values])
    return np.concatenate([layout.reshape(f, -1) / (GRID * GRID * 3), hist / 2], axis=1)


def soft_histogram(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (N, 3) in [0, 1] -> (BINS^3,) shares that sum to 1, linear between bin centres."""
    at = colours * (BINS - 1)
    low = np.minimum(at.astype(int), BINS - 2)
    part = at - low
    out = np.zeros(BINS**3)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=1)
        out += np.bincount((low + corner) @ np.array([BINS * BINS, BINS, 1]), weight, BINS**3)
    return out / len(colours)


def distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """L1 distance of features, broadcast over leading axes; the mean of layout's and histogram's, in [0, 1]."""
    return np.abs(a - b).sum(-1) / 2


def identity_distance(frames: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Mean distance of frames (F, H, W, 3) to one reference picture (H, W, 3)."""
    return float(distance(appearance(frames), appearance(reference[None])).mean())


@dataclass(frozen=True)
class IdentityScale:
    """Mean distance between frames of one clip (``same``) and between different characters (``different``)."""

    same: float
    different: float

    def relative(self, value: float) -> float:
        """0 = as near as frames of one clip are, 1 = as far as another character."""
        return (value - self.same) / max(self.different - self.same, 1e-9)


def calibrate(clips: Sequence[NDArray[np.uint8]]) -> IdentityScale:
    """Measure both distances on real clips (F, H, W, 3) of different characters; nan where there is only one."""
    features = [appearance(c[::max(len(c) // 8, 1)]) for c in clips]
    same = [float(distance(f[:1], f[1:]).mean()) for f in features if len(f) > 1]
    different = [float(distance(features[i][:1], features[j]).mean())
                 for i in range(len(features)) for j in range(len(features)) if i != j]
    return IdentityScale(float(np.mean(same)) if same else float("nan"),
                         float(np.mean(different)) if different else float("nan"))
