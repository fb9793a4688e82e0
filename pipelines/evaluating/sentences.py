"""New sentences of a grammar: what no model can have learnt by heart."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from math import prod

import numpy as np

from pipelines.evaluating.material import Subject
from streamchar.errors import InputError
from streamchar.evaluation.recogniser import GRID_SLOTS, grid_sentences
from streamchar.transcript import normalise_words

log = logging.getLogger(__name__)


def new_sentences(count: int, known: Iterable[str], seed: int) -> list[str]:
    """``count`` different sentences of the GRID grammar that are none of ``known``, nor part of one of them.

    Raises:
        InputError: where the grammar does not hold so many.
    """
    size = len(GRID_SLOTS)
    texts = [normalise_words(text) for text in known]
    taken = {" ".join(words[i:i + size]) for words in texts if grid_sentences(words)
             for i in range(0, len(words), size)}
    left = prod(map(len, GRID_SLOTS.values())) - len(taken)
    if count > left:
        raise InputError(f"evaluate.new_sentences={count}: the GRID grammar holds only {left} new ones; ask for fewer")
    rng = np.random.default_rng(seed)
    found: list[str] = []
    while len(found) < count:
        text = " ".join(str(rng.choice(words)) for words in GRID_SLOTS.values())
        if text not in taken:
            taken.add(text)
            found.append(text)
    return found


def asked_anew(subjects: list[Subject], count: int, known: list[str], seed: int) -> list[Subject]:
    """Subjects that say new sentences, with the prompts of ``subjects`` in turn; none where the texts are no GRID."""
    if not count:
        return []
    said = [words for text in known if (words := normalise_words(text))]
    if not said or not all(grid_sentences(words) for words in said):
        log.warning("evaluate.new_sentences=%d: the training texts are not of the GRID grammar; none are asked for",
                    count)
        return []
    out = []
    for i, text in enumerate(new_sentences(count, known, seed)):
        base = subjects[i % len(subjects)]
        assert base.prompt is not None
        out.append(Subject(f"new-{i:03d}", text, base.reference, {}, replace(base.prompt, words=[text.split()]), None,
                           base.speaker, base.look, None, True))
    return out
