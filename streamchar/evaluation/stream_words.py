"""Word errors along a long stream [ours]: one alignment of the whole, its errors laid on the stream's time.

The reference is the part of the transcript that the pointer has passed at the stream's end (rounded down: a word that
was cut by the end was not to be heard whole). Heard words are aligned with it by jiwer. Word n is due while the pointer
goes from n to n + 1, which gives it a second; deletions and substitutions count there, insertions at the word before
them. ``missed`` words were never heard (deletions): with a pointer that ran ahead, words are skipped for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError


@dataclass(frozen=True)
class StreamWords:
    """``wer`` and ``missed`` as parts of the ``words`` that were due; per window of stream time its words' errors and
    their number, (W,) each."""

    wer: float
    missed: float
    words: int
    errors: tuple[float, ...]
    counts: tuple[int, ...]

    def window(self, number: int) -> float:
        """Errors of a window over its words; nan where none was due."""
        return self.errors[number] / self.counts[number] if self.counts[number] else float("nan")


def due_times(pointers: Sequence[float], chunk_s: float, words: int) -> NDArray[np.float64]:
    """(words,) the second at which the pointer passes the middle of each word; ``pointers``: words at chunk ends."""
    ends = np.concatenate([[0.0], np.maximum.accumulate(np.asarray(pointers, np.float64))])
    middle = np.minimum(np.arange(words) + 0.5, ends[-1] - 1e-9)
    chunk = np.searchsorted(ends, middle, side="right") - 1  # the last border at or before it: a waiting pointer's end
    return (chunk + (middle - ends[chunk]) / (ends[chunk + 1] - ends[chunk])) * chunk_s


def stream_words(transcript: Sequence[str], heard: Sequence[str], pointers: Sequence[float], chunk_s: float,
                 windows: int) -> StreamWords:
    """Errors of a stream in ``windows`` equal parts of its time.

    Args:
        transcript: normalised words, which outlast the stream or end in it.
        heard: recognised words.
        pointers: in words, at the end of each chunk.
        chunk_s: seconds of a chunk.

    Raises:
        InputError: where the pointer passed no word.
    """
    import jiwer

    due = min(int(max(pointers, default=0.0) + 1e-6), len(transcript))
    if due < 1:
        raise InputError("the pointer passed no word of the transcript; there is nothing to score")
    errors, missed = np.zeros(due), 0
    for c in jiwer.process_words(" ".join(transcript[:due]), " ".join(heard)).alignments[0] if heard else []:
        if c.type == "insert":
            errors[min(max(c.ref_start_idx - 1, 0), due - 1)] += c.hyp_end_idx - c.hyp_start_idx
        elif c.type != "equal":
            errors[c.ref_start_idx:c.ref_end_idx] += 1
            missed += (c.ref_end_idx - c.ref_start_idx) * (c.type == "delete")
    if not heard:
        errors, missed = np.ones(due), due
    length = len(pointers) * chunk_s
    at = np.minimum((due_times(pointers, chunk_s, due) / length * windows).astype(int), windows - 1)
    sums = np.bincount(at, errors, windows)
    counts = np.bincount(at, minlength=windows)
    return StreamWords(float(errors.sum() / due), missed / due, due, tuple(sums.tolist()), tuple(counts.tolist()))
