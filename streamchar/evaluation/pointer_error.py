"""Pointer error in words per chunk, beside the guess that needs no model: a constant number of words per chunk.

``error`` is |predicted - true| position at a chunk's end, in words, the true position interpolated inside the word.
The constant-rate guess starts from the same true position at the chunk's start and adds the training set's mean words
per chunk, stopping at the transcript's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamchar.transcript import Word, word_position_at


@dataclass(frozen=True)
class PointerScore:
    """Mean absolute errors in words: of the pointer, of the constant-rate guess; chunks counted; mean signed error."""

    error: float
    guess: float
    bias: float
    chunks: int

    @property
    def ratio(self) -> float:
        """Pointer's error over the guess's: at most 0.5 is asked of a trained model."""
        return self.error / self.guess if self.guess else float("nan")


def pointer_score(predicted: Sequence[float], true: Sequence[float], start: Sequence[float], total: Sequence[float],
                  words_per_chunk: float) -> PointerScore:
    """Score (K,) predictions in words; ``start``: true positions at the chunks' starts, ``total``: transcript lengths.

    Chunks that begin at the transcript's end are left out: nothing can be wrong there, for either.
    """
    p, s, b, n = (np.asarray(x, np.float64) for x in (predicted, true, start, total))
    keep = b < n
    p, s, b, n = p[keep], s[keep], b[keep], n[keep]
    if not len(p):
        nan = float("nan")
        return PointerScore(nan, nan, nan, 0)
    guess = np.minimum(b + words_per_chunk, n)
    return PointerScore(float(np.abs(p - s).mean()), float(np.abs(guess - s).mean()), float((p - s).mean()), len(p))


def true_positions(words: Sequence[Word], chunks: int, chunk_s: float, offset: float = 0.0) -> NDArray[np.float64]:
    """Words said at each chunk's end, (chunks,), from word times; ``offset``: the first chunk's start in seconds."""
    return np.array([word_position_at(words, offset + (k + 1) * chunk_s) for k in range(chunks)])


def mean_words_per_chunk(clips: Sequence[Sequence[Word]], durations: Sequence[float], chunk_s: float) -> float:
    """Mean words per chunk over clips with text left: words said per chunk, from clip start to the last word's end."""
    said, chunks = 0.0, 0.0
    for words, duration in zip(clips, durations, strict=True):
        if words:
            said += len(words)
            chunks += min(words[-1].end, duration) / chunk_s
    return said / chunks if chunks else 0.0
