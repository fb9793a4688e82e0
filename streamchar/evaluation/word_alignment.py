"""Which words of a text were heard, by the alignment with fewest edits (jiwer's)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def align_words(said: Sequence[str], heard: Sequence[str]) -> tuple[NDArray[np.float64], int, list[int]]:
    """Errors at each said word without insertions (0 or 1), the number of deletions, and which heard words are
    inserted."""
    import jiwer

    if not said or not heard:  # jiwer takes no empty reference
        return np.ones(len(said)), len(said), [*range(len(heard))]
    wrong, deleted, inserted = np.zeros(len(said)), 0, list[int]()
    for c in jiwer.process_words(" ".join(said), " ".join(heard)).alignments[0]:
        if c.type == "insert":
            inserted += range(c.hyp_start_idx, c.hyp_end_idx)
        elif c.type != "equal":
            wrong[c.ref_start_idx:c.ref_end_idx] = 1
            deleted += (c.ref_end_idx - c.ref_start_idx) * (c.type == "delete")
    return wrong, deleted, inserted
