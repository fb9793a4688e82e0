"""How much the picture moves [ours], so that a frozen face cannot win on identity and sharpness.

With Y_f the luma of frame f in grey levels,

    energy = mean over f and pixels of |Y_(f+1) - Y_f|          in grey levels per frame
    dynamic = min(energy / energy of the real clips, 1)         0 frozen, 1 as lively as real

over the whole picture, inside the mouth's box and outside it. Flicker moves as well, hence the cap: more than real is
no merit, and what it is worth is for the eye and for ``drift.py`` to say. Compare at one size and one frame rate only.
Real clips (GRID, 25 fps, 160x160): .82 whole, 2.68 in a close box around the mouth, .73 outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError
from streamchar.evaluation.luma import luma
from streamchar.evaluation.mouth import Region


@dataclass(frozen=True)
class Motion:
    """Grey levels per frame over the ``whole`` picture, ``inside`` the mouth's box and ``outside`` it (nan: no box)."""

    whole: float
    inside: float
    outside: float


def motion_energy(frames: NDArray[np.uint8], mouth: Region | None = None) -> Motion:
    """Energy of frames (F, H, W, 3); nan with fewer than two.

    Args:
        mouth: x0, y0, x1, y1 in shares of the picture.

    Raises:
        InputError: if the mouth's box holds no pixel.
    """
    nan = float("nan")
    if len(frames) < 2:
        return Motion(nan, nan, nan)
    # frame by frame: a long stream's luma in floats would not fit into memory
    before = luma(frames[0])
    h, w = before.shape
    change = np.zeros((h, w))
    for frame in frames[1:]:
        now = luma(frame)
        change += np.abs(now - before)
        before = now
    change /= len(frames) - 1
    if mouth is None:
        return Motion(float(change.mean()), nan, nan)
    box = np.zeros((h, w), bool)
    box[round(mouth[1] * h):round(mouth[3] * h), round(mouth[0] * w):round(mouth[2] * w)] = True
    if not box.any():
        raise InputError(f"the mouth's box {mouth} holds no pixel of a {w}x{h} picture; give x0, y0, x1, y1 in shares "
                         "of the picture")
    return Motion(float(change.mean()), float(change[box].mean()), float(change[~box].mean()) if not box.all() else nan)


def mean_motion(clips: list[Motion]) -> Motion:
    """Mean over clips, what is nan left out."""
    rows = np.array([[c.whole, c.inside, c.outside] for c in clips]).reshape(-1, 3)
    return Motion(*(float(col[np.isfinite(col)].mean()) if np.isfinite(col).any() else float("nan") for col in rows.T))


def dynamic_share(energy: float, real: float) -> float:
    """``energy`` as a share of the real clips', at most 1; nan where the real clips do not move."""
    return min(energy / real, 1.0) if real > 0 else float("nan")
