"""Transcripts: words, text units, timed positions, and the one function that splits them (design, section 5).

Positions are real-valued and counted in *units*: a unit is a word where words are spelled from characters (small
models) and a token where the LLM's own tokenizer is used. Unit i covers positions [i, i + 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, count, repeat
from typing import NamedTuple, Protocol

import numpy as np
import torch

from streamchar.segmentation import normalise_words
from streamchar.types import Text

SILENCE_MARKS = {"sil", "sp", "<sil>", ""}


class Word(NamedTuple):
    """A spoken word and when it is spoken, in seconds from the clip's start."""

    text: str
    start: float
    end: float


class TextUnits(Protocol):
    """Turns words into rows of ids. ``width`` = W ids per unit (characters of a word, or 1 token)."""

    width: int

    def encode(self, word: str) -> list[list[int]]:
        """One word -> its units, each a list of ``width`` ids (0 = padding). Never empty, never raises."""


def spoken_words(words: Sequence[dict]) -> list[Word]:
    """The schema's ``words: [{w, start, end}]`` without its silence marks.

    Marks that normalise to several words share the time evenly.
    """
    out: list[Word] = []
    for entry in words:
        if str(entry["w"]).lower() in SILENCE_MARKS:
            continue
        parts = normalise_words(str(entry["w"]))
        start, end = float(entry["start"]), float(entry["end"])
        step = (end - start) / max(len(parts), 1)
        out += [Word(p, start + i * step, start + (i + 1) * step) for i, p in enumerate(parts)]
    return out


class Transcript:
    """A list of words with their units, growing at the end (text may arrive while the character speaks)."""

    def __init__(self, words: Sequence[str], units: TextUnits) -> None:
        self.units = units
        self.words: list[str] = []
        self.ids: list[list[int]] = []
        self.word_of_unit: list[int] = []
        self.first_unit: list[int] = []
        self.append(words)

    def append(self, words: Sequence[str]) -> None:
        """Add words at the end."""
        units = list(map(self.units.encode, words))
        unit, word = len(self.ids), len(self.words)
        self.ids += chain.from_iterable(units)
        self.words += words
        if len(self.ids) - unit == len(words):  # none is empty, so each is one unit
            self.first_unit += range(unit, len(self.ids))
            self.word_of_unit += range(word, len(self.words))
        else:
            counts = list(map(len, units))
            self.first_unit += list(accumulate(counts, initial=unit))[:-1]
            self.word_of_unit += chain.from_iterable(map(repeat, count(word), counts))

    def __len__(self) -> int:
        return len(self.ids)

    def word_position(self, position: float) -> float:
        """A position in units as a position in words (fractions kept)."""
        if position >= len(self):
            return float(len(self.words))
        unit = max(int(position), 0)
        word = self.word_of_unit[unit]
        first = self.first_unit[word]
        count = (self.first_unit[word + 1] if word + 1 < len(self.words) else len(self)) - first
        return word + (position - first) / count

    def unit_position(self, words: float) -> float:
        """A position in words as a position in units; the inverse of :meth:`word_position`."""
        if words >= len(self.words):
            return float(len(self))
        if len(self.ids) == len(self.words):  # every word is one unit
            return words
        word = max(int(words), 0)
        first = self.first_unit[word]
        count = (self.first_unit[word + 1] if word + 1 < len(self.words) else len(self)) - first
        return first + (words - word) * count


def word_position_at(words: Sequence[Word], t: float, known: float = 0.0) -> float:
    """How many words are said at time ``t`` (seconds): whole words ended plus the part of the current one.

    ``known``: the answer for an earlier time, from which the search goes on.
    """
    first = int(known)
    for said, (_, start, end) in enumerate(words[first:] if first else words, first):
        if t < end:
            return said + (t - start) / (end - start) if t > start else float(said)
    return float(len(words))


class SplitText(NamedTuple):
    """Result of :func:`split_transcript`: id rows, the position of todo's first unit, and the pointer within todo."""

    spoken: list[list[int]]
    todo: list[list[int]]
    base: int
    cursor: float


def split_transcript(transcript: Transcript, spoken_from: float, pointer: float,
                     max_spoken: int, max_todo: int) -> SplitText:
    """Split at the pointer into spoken text and text still to say.

    The word the pointer is inside stays whole in ``todo``. ``spoken`` holds the words from position ``spoken_from``
    (the history window's start) up to it, the latest ``max_spoken`` units; ``todo`` the next ``max_todo`` units.
    Training items and streams use this one function.
    """
    pointer = min(max(pointer, 0.0), float(len(transcript)))
    if pointer >= len(transcript):
        base = len(transcript)
    else:
        base = transcript.first_unit[transcript.word_of_unit[int(pointer)]]
    begin = min(max(int(spoken_from), 0), base)
    begin = max(begin, base - max_spoken)
    return SplitText(transcript.ids[begin:base], transcript.ids[base:base + max_todo], base, pointer - base)


def pack_text(rows: Sequence[list[list[int]]], size: int, width: int, align: str) -> Text:
    """Pad id rows of a batch to (B, size, width); ``align`` is ``left`` (todo) or ``right`` (spoken, newest last)."""
    units = [row[-size:] if align == "right" else row[:size] for row in rows]
    counts, slots = np.array([len(row) for row in units])[:, None], np.arange(size)
    mask = slots >= size - counts if align == "right" else slots < counts
    ids = np.zeros((len(rows), size, width), np.int64)
    each = chain.from_iterable(chain.from_iterable(units))
    ids[mask] = np.fromiter(each, np.int64, int(counts.sum()) * width).reshape(-1, width)
    return Text(torch.from_numpy(ids), torch.from_numpy(mask))
