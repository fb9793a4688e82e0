"""What a model could do to look good on one measure; each must come out badly on another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluating.material import Rendering, Subject


def add_cheats(subjects: list[Subject], seed: int) -> None:
    """Give every subject that was recorded its cheats, made of recorded clips.

    still: the reference (or the first frame) with the true sound. swapped: true pictures with the next clip's sound.
    one: the first clip, whatever was asked for. noise: noise in pictures and sound, as loud as the speech.
    """
    known = [s for s in subjects if source(s) is not None]
    rng = np.random.default_rng(seed)
    for i, subject in enumerate(known):
        mine, next_ = source(subject), source(known[(i + 1) % len(known)])
        first = source(known[0])
        assert mine is not None and next_ is not None and first is not None
        picture = subject.reference if subject.reference is not None else mine.frames[0]
        subject.renderings["still"] = Rendering(np.broadcast_to(picture, mine.frames.shape), mine.sound)
        if len(known) > 1:
            subject.renderings["swapped"] = Rendering(mine.frames, fitted(next_.sound, len(mine.sound)))
            subject.renderings["one"] = first
        loud = float(np.sqrt(np.mean(mine.sound**2)))
        sound = (rng.standard_normal(len(mine.sound)) * loud).astype(np.float32)
        subject.renderings["noise"] = Rendering(rng.integers(0, 256, mine.frames.shape, dtype=np.uint8), sound)


def source(subject: Subject) -> Rendering | None:
    """The clip as recorded, or through the codecs where the recording is gone."""
    return subject.renderings.get("real") or subject.renderings.get("codec")


def fitted(sound: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Cut, or padded with silence, to ``size`` samples."""
    return np.pad(sound[:size], (0, max(size - len(sound), 0)))
