"""What puppets say: the six-word GRID grammar and simple English sentences; every sentence has one split for ever."""

from __future__ import annotations

import zlib

import numpy as np

from streamchar.errors import InputError

GRID = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
"""Command, colour, preposition, letter (no w), digit, adverb."""

WORDS = {
    "DET": "the my your our this every",
    "ADJ": "small big old new happy quiet warm cold bright brown yellow little lazy clever busy",
    "ANIMAL": "dog cat horse bird mouse rabbit fish duck bear fox",
    "PERSON": "man woman boy girl teacher farmer doctor baker sister brother friend mother father",
    "THING": "book table cup letter picture song apple box window boat lamp chair map key hat",
    "PLACE": "garden house river kitchen school market forest station mountain village beach bridge",
    "GO": "runs walks moves comes goes jumps looks",
    "DO": "opens takes finds brings makes wants paints carries",
    "TO": "to near behind from beside past",
    "WHEN": "today tonight tomorrow again slowly often early always",
    "FEEL": "warm cold happy quiet bright busy ready beautiful open empty",
}
TEMPLATES = (
    "DET ADJ ANIMAL GO TO DET PLACE",
    "DET PERSON DO DET ADJ THING",
    "DET PERSON DO DET THING WHEN",
    "we go TO DET ADJ PLACE WHEN",
    "DET THING is near DET PLACE",
    "DET PLACE is FEEL WHEN",
    "do you see DET ADJ ANIMAL",
    "i think DET PERSON DO DET THING",
    "where is DET THING of DET PERSON",
    "please bring me DET ADJ THING",
    "can we look for DET ANIMAL WHEN",
    "DET ANIMAL and DET ANIMAL GO WHEN",
)
"""Capital names stand for one word of their list."""

_FREE = {name: tuple(line.split()) for name, line in WORDS.items()}
VAL_SHARE = 8
"""One sentence in so many is held out."""


def split_of(sentence: str) -> str:
    """``val`` or ``train``: a property of the sentence alone, so the two can never share one."""
    return "val" if zlib.crc32(sentence.encode()) % VAL_SHARE == 0 else "train"


def draw_sentence(rng: np.random.Generator, grammar: str, split: str, grid_share: float) -> str:
    """A random sentence of a split.

    Args:
        rng: source of randomness.
        grammar: ``grid``, ``free`` or ``mixed``.
        split: ``train`` or ``val``.
        grid_share: share of GRID sentences where mixed.

    Raises:
        InputError: on another grammar.
    """
    if grammar not in ("grid", "free", "mixed"):
        raise InputError(f"prepare.grammar={grammar!r}: expected grid, free or mixed")
    while True:
        grid = grammar == "grid" or (grammar == "mixed" and rng.random() < grid_share)
        sentence = _draw_grid(rng) if grid else _draw_free(rng)
        if split_of(sentence) == split:
            return sentence


def _draw_grid(rng: np.random.Generator) -> str:
    return " ".join(str(rng.choice(slot)) for slot in GRID)


def _draw_free(rng: np.random.Generator) -> str:
    template = TEMPLATES[int(rng.integers(len(TEMPLATES)))].split()
    return " ".join(str(rng.choice(_FREE[w])) if w in _FREE else w for w in template)
