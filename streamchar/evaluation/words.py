"""Word and character errors with a bootstrap interval, beside what wrong transcripts would score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError
from streamchar.transcript import normalise_words


@dataclass(frozen=True)
class WordScore:
    """Errors as parts of the reference: ``wer`` and ``cer`` with their 95 % intervals; ``words`` counted.

    ``low`` and ``high`` are of ``wer``, ``cer_low`` and ``cer_high`` of ``cer``; ``sentences`` is the number of
    sentences, with one of which an interval is the value itself.
    """

    wer: float
    low: float
    high: float
    cer: float
    cer_low: float
    cer_high: float
    words: int
    sentences: int

    def as_dict(self) -> dict[str, float | int]:
        """For JSON reports."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{100 * self.wer:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}] of {self.words} words"


def score_words(references: Sequence[str], heard: Sequence[str], *, resamples: int = 1000, seed: int = 0,
                groups: Sequence[str] | None = None) -> WordScore:
    """Errors of ``heard`` against ``references``, sentence by sentence, pooled over words.

    Args:
        references: what should have been said; case and punctuation do not count.
        heard: what was recognised, in the same order; empty where nothing was.
        resamples: bootstrap draws over sentences for the interval.
        seed: of these draws.
        groups: what belongs together (one clip's streams with several seeds) is drawn together: it is not independent.

    Raises:
        InputError: if the lists differ in length, or hold no reference word.
    """
    counts = _counts(references, heard)
    errors, words, letter_errors, letters = counts.sum(0)
    sentences = len(counts)
    if groups is not None:
        _, number = np.unique(np.asarray(groups), return_inverse=True)
        counts = np.stack([np.bincount(number, column) for column in counts.T], axis=1)
    draws = np.random.default_rng(seed).integers(0, len(counts), (resamples, len(counts)))
    sums = counts[draws].sum(1)  # (R, 4)
    low, high = np.quantile(sums[:, 0] / np.maximum(sums[:, 1], 1), [0.025, 0.975])
    cer_low, cer_high = np.quantile(sums[:, 2] / np.maximum(sums[:, 3], 1), [0.025, 0.975])
    return WordScore(float(errors / words), float(low), float(high), float(letter_errors / max(letters, 1)),
                     float(cer_low), float(cer_high), int(words), sentences)


def shuffled_score(references: Sequence[str], heard: Sequence[str], *, seed: int = 0) -> WordScore:
    """Errors against other sentences' transcripts: what speech scores that ignores its text.

    Every reference moves to another sentence (by a cyclic shift after a random order). Equal texts lie together and
    the shift reaches over them: none meets itself, unless one text is more than half of all.

    Raises:
        InputError: with fewer than two sentences, or as :func:`score_words`.
    """
    if len(references) < 2:
        raise InputError("shuffled transcripts need at least two sentences; score more clips")
    said = [" ".join(normalise_words(r)) for r in references]
    order = np.random.default_rng(seed).permutation(len(references))
    turn = {text: i for i, text in enumerate(dict.fromkeys(said[i] for i in order))}
    order = np.array(sorted(order, key=lambda i: turn[said[i]]))
    wrong = [""] * len(references)
    for here, there in zip(order, np.roll(order, max(Counter(said).values())), strict=True):
        wrong[here] = references[there]
    return score_words(wrong, heard, seed=seed)


def other_texts_score(references: Sequence[str], heard: Sequence[str], *, seed: int = 0) -> WordScore:
    """Errors against every other text of the set, pooled: what speech scores that says another of these sentences.

    Unlike :func:`shuffled_score` it never compares with the same text said by somebody else.

    Raises:
        InputError: where all references are the same text, or as :func:`score_words`.
    """
    said = [normalise_words(r) for r in references]
    pairs = [(other, got) for text, got in zip(said, heard, strict=True) for other in said if other != text]
    if not pairs:
        raise InputError("every sentence has the same text; errors against other texts need at least two texts")
    return score_words([" ".join(other) for other, _ in pairs], [got for _, got in pairs], seed=seed)


def _counts(references: Sequence[str], heard: Sequence[str]) -> NDArray[np.int64]:
    """(sentences, 4): word errors, reference words, character errors, reference characters."""
    import jiwer

    if len(references) != len(heard):
        raise InputError(f"{len(references)} references but {len(heard)} recognised sentences; give one for each")
    rows = []
    for said, got in zip(references, heard, strict=True):
        want, have = normalise_words(said), normalise_words(got)
        if not want:  # jiwer takes no empty reference; whatever was heard is inserted
            rows.append((len(have), 0, len(" ".join(have)), 0))
            continue
        by_word = jiwer.process_words(" ".join(want), " ".join(have))
        by_letter = jiwer.process_characters(" ".join(want), " ".join(have))
        rows.append((by_word.substitutions + by_word.deletions + by_word.insertions, len(want),
                     by_letter.substitutions + by_letter.deletions + by_letter.insertions, len(" ".join(want))))
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    if table[:, 1].sum() == 0:
        raise InputError("no reference holds a word; there is nothing to score")
    return table
