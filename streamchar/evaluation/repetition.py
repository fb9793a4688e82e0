"""How much is said again, and how much is said that is not in the text [ours].

The heard words are aligned with the text by jiwer (fewest edits). Per word of the text,

    inserted = inserted heard words / words of the text
    repeated = repeated heard words / words of the text

where a heard word counts as repeated if it is surplus, that is
  * inserted, and equal to one of the three heard words before it or after it (of two copies the alignment may call
    either one the surplus one), or
  * in another word's place, and part of a run that is said twice: equal to the word p = 1, 2 or 3 before it, and for
    p > 1 its neighbour also equal to the word p before that. (A stream of fixed length that repeats itself ends before
    its text does, and the fewest edits then put the copies in the place of other words; a single word that was
    misheard as a near one is not counted.)

Words that the text itself repeats are matched and never count; loops of more than three words show in ``inserted``
alone. Hear with a recogniser that is free to repeat: a bigram
or a network, never a fixed grammar; the recogniser's own errors are the floor, so real clips belong beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamchar.errors import InputError
from streamchar.transcript import normalise_words

REACH = 3
"""Words within which a copy is a repetition."""


@dataclass(frozen=True)
class RepetitionScore:
    """Heard words that are repetitions, and heard words that are inserted, per word of the text."""

    repeated: float
    inserted: float


def repetition_score(references: Sequence[str], heard: Sequence[str]) -> RepetitionScore:
    """The score of several sentences, pooled over the words of the texts.

    Raises:
        InputError: if the lists differ in length, or no text holds a word.
    """
    if len(references) != len(heard):
        raise InputError(f"{len(references)} texts but {len(heard)} recognised sentences; give one for each")
    words = repeated = inserted = 0
    for text, got in zip(references, heard, strict=True):
        said, have = normalise_words(text), normalise_words(got)
        again, more = count_surplus(said, have)
        words, repeated, inserted = words + len(said), repeated + again, inserted + more
    if not words:
        raise InputError("no text holds a word; there is nothing to score")
    return RepetitionScore(repeated / words, inserted / words)


def count_surplus(text: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """Repeated and inserted words of one sentence, as in the module's formula."""
    try:
        import jiwer
    except ImportError as error:
        raise InputError("aligning words needs jiwer; install the 'eval' extra: pip install .[eval]") from error
    if not heard:
        return 0, 0
    inserted, replaced = list(range(len(heard))), []
    if text:  # jiwer takes no empty reference; whatever was heard is inserted
        chunks = jiwer.process_words(" ".join(text), " ".join(heard)).alignments[0]
        inserted = [i for c in chunks if c.type == "insert" for i in range(c.hyp_start_idx, c.hyp_end_idx)]
        replaced = [i for c in chunks if c.type == "substitute" for i in range(c.hyp_start_idx, c.hyp_end_idx)]
    near = sum(heard[i] in (*heard[max(i - REACH, 0):i], *heard[i + 1:i + 1 + REACH]) for i in inserted)
    return near + sum(_in_a_repeated_run(heard, i) for i in replaced), len(inserted)


def _in_a_repeated_run(heard: Sequence[str], i: int) -> bool:
    def copied(k: int, period: int) -> bool:
        return period <= k < len(heard) and heard[k] == heard[k - period]

    return any(copied(i, p) and (p == 1 or copied(i - 1, p) or copied(i + 1, p)) for p in range(1, REACH + 1))
