"""New sentences of a grammar: what no model can have learnt by heart."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pipelines.evaluating.material import Subject
from streamchar.evaluation.recogniser import GRID_SLOTS, grid_sentences
from streamchar.transcript import normalise_words

log = logging.getLogger(__name__)


def new_sentences(count: int, known: Iterable[str], seed: int) -> list[str]:
    """``count`` different sentences of the GRID grammar that are none of ``known``."""
    taken = {" ".join(normalise_words(text)) for text in known}
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
    if not all(grid_sentences(normalise_words(text)) for text in known):
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
