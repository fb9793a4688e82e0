"""Word errors along a long stream [ours]: one alignment of the whole, its errors laid on the stream's time.

The reference is the part of the transcript that the pointer has passed at the stream's end (rounded down: a word that
was cut by the end was not to be heard whole). Heard words are aligned with it (``word_alignment``). Word n is due while
the pointer goes from n to n + 1, which gives it a second; deletions and substitutions count there, insertions in the
window in which they were heard (the middle of the heard word). With E_k errors and D_k words due in window k of W,

    wer = sum E_k / sum D_k        window k = E_k / D_k, and 1 where D_k = 0        missed = deletions / sum D_k

The same words, laid on the time of their own chunk, tell whether what a chunk has to say late in it is less clear than
what it says first: ``thirds`` are the parts of the words due in each third that were not heard right.

A window in which no word was due is one over which the pointer stood still, and text is never lacking: it counts as
wholly wrong, whether it is silent or babbles, and never drops out of a mean. ``missed`` words were never heard: with a
pointer that ran ahead, words are skipped for ever. A stream whose pointer passed no word at all is dead
(:func:`dead_stream`): every word that was due at a constant rate is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError
from streamchar.evaluation.word_alignment import align_words
from streamchar.transcript import Word


@dataclass(frozen=True)
class StreamWords:
    """``wer`` and ``missed`` as parts of the ``words`` that were due; per window of stream time its errors and the
    words due in it, (W,) each; per third of a chunk's time the part of its words that were not heard right (nan: none
    was due)."""

    wer: float
    missed: float
    words: int
    errors: tuple[float, ...]
    counts: tuple[int, ...]
    thirds: tuple[float, float, float]

    def window(self, number: int) -> float:
        """Errors of a window over its words; 1 where none was due."""
        return self.errors[number] / self.counts[number] if self.counts[number] else 1.0

    @property
    def stalled(self) -> float:
        """Part of the windows in which no word was due."""
        return sum(count == 0 for count in self.counts) / len(self.counts)


def due_times(pointers: Sequence[float], chunk_s: float, words: int) -> NDArray[np.float64]:
    """(words,) the second at which the pointer passes the middle of each word; ``pointers``: words at chunk ends."""
    ends = np.concatenate([[0.0], np.maximum.accumulate(np.asarray(pointers, np.float64))])
    middle = np.minimum(np.arange(words) + 0.5, ends[-1] - 1e-9)
    chunk = np.searchsorted(ends, middle, side="right") - 1  # the last border at or before it: a waiting pointer's end
    return (chunk + (middle - ends[chunk]) / (ends[chunk + 1] - ends[chunk])) * chunk_s


def words_passed(pointers: Sequence[float]) -> int:
    """Whole words that the pointer has passed at the stream's end."""
    return int(max(pointers, default=0.0) + 1e-6)


def stream_words(transcript: Sequence[str], heard: Sequence[Word], pointers: Sequence[float], chunk_s: float,
                 windows: int) -> StreamWords:
    """Errors of a stream in ``windows`` equal parts of its time.

    Args:
        transcript: normalised words, which outlast the stream or end in it.
        heard: recognised words in order, with their seconds from the stream's start.
        pointers: in words, at the end of each chunk.
        chunk_s: seconds of a chunk.

    Raises:
        InputError: where the pointer passed no word.
    """
    due = min(words_passed(pointers), len(transcript))
    if due < 1:
        raise InputError("the pointer passed no word of the transcript; score it as a dead stream")
    length = len(pointers) * chunk_s
    wrong, deleted, inserted = align_words(transcript[:due], [w.text for w in heard])
    seconds = due_times(pointers, chunk_s, due)
    at = _windows_of(seconds, length, windows)
    babble = _windows_of(np.array([(heard[i].start + heard[i].end) / 2 for i in inserted]), length, windows)
    errors = np.bincount(at, wrong, windows) + np.bincount(babble, minlength=windows)
    counts = np.bincount(at, minlength=windows)
    third = (due_times(pointers, 1.0, due) % 1.0 * 3).astype(np.int64)  # whole chunks are whole numbers
    first, middle, last = (float(wrong[third == k].mean()) if (third == k).any() else nan for k in range(3))
    return StreamWords(float(errors.sum() / due), deleted / due, due, tuple(errors.tolist()), tuple(counts.tolist()),
                       (first, middle, last))


def dead_stream(transcript: Sequence[str], chunks: int, words_per_chunk: float, chunk_s: float,
                windows: int) -> StreamWords:
    """A stream of ``chunks`` whose pointer passed no word: what was due at the constant rate (one word at least), all
    missed, whatever was heard."""
    rate = max(words_per_chunk, 1 / chunks)
    return stream_words(transcript, [], [rate * (k + 1) for k in range(chunks)], chunk_s, windows)


def _windows_of(seconds: NDArray[np.float64], length: float, windows: int) -> NDArray[np.int64]:
    """The window of each second; what lies outside the stream belongs to the nearest."""
    return np.clip((seconds / length * windows).astype(np.int64), 0, windows - 1)
