"""Sync by embeddings: how far pictures and sound lie apart at every offset, and the three figures taken from that.

The definitions of Chung and Zisserman, "Out of time: automated lip sync in the wild" (2016): for every window of five
frames the distance to the sound windows at offsets up to 15 frames either way, averaged over the windows. One measure
for our own network (:mod:`.syncnet`) and for the field's (:mod:`.syncnet_field`); the numbers of two networks are never
comparable with each other.

Legend: N windows, D embedding channels, R largest offset in frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from streamchar.errors import InputError

FRAMES = 5
"""Frames of one window."""
MAX_OFFSET = 15
"""Frames searched each way, as in the field."""
FEWEST_WINDOWS = 4


@dataclass(frozen=True)
class SyncNetScore:
    """``confidence``: median minus minimum of the curve, 0 where no offset fits better than another; ``distance``: the
    curve's minimum, lower is better; ``offset``: frames where it lies, positive = the mouth comes after the sound (as
    ``lag`` of :mod:`.sync`); ``curve``: mean distance per offset from -R to R, in the network's own unit."""

    confidence: float
    distance: float
    offset: int
    curve: tuple[float, ...]


def score_offsets(seen: Tensor, heard: Tensor, max_offset: int = MAX_OFFSET, zero_padded: bool = False) -> SyncNetScore:
    """Compare embeddings of pictures (N, D) and of the sound under them (N, D).

    Args:
        max_offset: frames searched each way; fewer for clips of less than twice as many windows.
        zero_padded: beyond the ends compare with zero vectors, as the public ``syncnet_python`` does, instead of
            leaving those pairs out.

    Raises:
        InputError: when the two disagree in shape, or there are fewer than four windows.
    """
    if seen.shape != heard.shape or seen.ndim != 2:
        raise InputError(f"embeddings of pictures {tuple(seen.shape)} and sound {tuple(heard.shape)} must both be "
                         "(windows, channels); cut them to the same windows")
    n = len(seen)
    if n < FEWEST_WINDOWS:
        raise InputError(f"a clip of {max(n + FRAMES - 1, 0)} frames with sound is too short for sync, at least "
                         f"{FEWEST_WINDOWS + FRAMES - 1} expected; use longer clips")
    reach = max_offset if zero_padded else min(max_offset, n // 2)
    sound = F.pad(heard, (0, 0, reach, reach))
    curve = []
    for offset in range(-reach, reach + 1):  # the mouth at window i says what was heard at i - offset
        first, last = (0, n) if zero_padded else (max(offset, 0), n + min(offset, 0))
        partner = sound[reach + first - offset: reach + last - offset]
        # not cdist: its matrix products lose the digits that small differences between offsets need
        curve.append(float(torch.linalg.vector_norm(seen[first:last] - partner, dim=1).mean()))
    return curve_score(np.array(curve))


def curve_score(curve: np.ndarray) -> SyncNetScore:
    """The figures of one curve (2 R + 1,), or of the mean curve of several clips."""
    at = int(curve.argmin())
    return SyncNetScore(float(np.median(curve) - curve[at]), float(curve[at]), at - len(curve) // 2,
                        tuple(float(c) for c in curve))
