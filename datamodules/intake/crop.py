"""The square around a face: as still as the head allows, and resized with antialiasing.

A head that stays inside its square gets a still one, so that the background does not move; else the square follows the
smoothed path. The side never changes within a clip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.intake.face_track import FaceTrack

STILL = 0.25
"""A centre that stays within so many face sides of its median counts as still."""
SMOOTH_S = 1.0
HEADROOM = 0.08
"""The detector's box ends at the eyebrows' top: the square's centre lies higher by so many face sides."""


@dataclass(frozen=True)
class CropPath:
    """Where the square is: ``corners`` (F, 2) of its upper left in pixels, ``side`` in pixels, whether it ``moves``."""

    corners: NDArray[np.float64]
    side: float
    moves: bool


def plan_crop(track: FaceTrack, first: int, stop: int, fps: float, scale: float, width: int, height: int) -> CropPath:
    """The square's way through the frames [first, stop) of a picture of ``width`` x ``height`` pixels.

    Args:
        track: of the face in the same pixels, at least one detection.
        scale: the square's side over the face's; less where the picture is smaller.
    """
    face = track.side
    side = min(face * scale, width, height)
    centres = track.centres(first, stop) - [0.0, HEADROOM * face]
    middle = np.median(centres, axis=0)
    moves = bool(np.abs(centres - middle).max() > STILL * face)
    centres = smooth(centres, fps) if moves else np.broadcast_to(middle, centres.shape)
    corners = np.clip(centres - side / 2, 0.0, np.array([width, height]) - side)
    return CropPath(corners, side, moves)


def smooth(path: NDArray[np.float64], fps: float) -> NDArray[np.float64]:
    """(F, 2) under a Hann window of about ``2 SMOOTH_S``."""
    half = max(round(SMOOTH_S * fps), 1)
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(path, ((half, half), (0, 0)), mode="edge")
    return np.stack([np.convolve(padded[:, c], window / window.sum(), "valid") for c in range(path.shape[1])], 1)


def cut(frame: NDArray[np.uint8], corner: NDArray[np.float64], side: float, size: int) -> NDArray[np.uint8]:
    """(H, W, 3) -> (size, size, 3): the square at ``corner``."""
    from PIL import Image

    x, y = float(corner[0]), float(corner[1])
    method = Image.Resampling.BICUBIC if side < size else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(frame).resize((size, size), method, (x, y, x + side, y + side)))
