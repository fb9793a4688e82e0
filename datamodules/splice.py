"""New sentences out of spoken ones: words of several recordings in a row, and the same at another speed.

Speed perturbation is that of Ko et al. 2015, "Audio augmentation for speech recognition": the sound is resampled, so
that pitch and pace change together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise

import numpy as np
import torch
import torchaudio

from streamchar.transcript import Word

FADE_S = 0.01
"""Over which one recording gives way to the next."""
SEARCH_S = 0.02
"""How far from the border of two words the quietest moment is sought."""
LOUDNESS_S = 0.005
"""Span over which loudness is measured there."""
SHORTEST_S = 0.035
"""Words shorter than this are not told from their neighbours."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """wave: (S,) float32 in [-1, 1], mono. words: spoken in it, with their seconds; at least one."""

    wave: np.ndarray
    words: list[Word]

    def can_be_cut(self, rate: int) -> bool:
        """Whether every word is whole and has a place of its own in the sound, one after another."""
        seconds = len(self.wave) / rate + SEARCH_S  # the last word's end is rounded
        return (bool(self.words) and all(0 <= w.start <= w.end - SHORTEST_S and w.end <= seconds for w in self.words)
                and all(a.end <= b.start + 1e-6 for a, b in pairwise(self.words)))


def spliced(sources: Sequence[Utterance], rate: int) -> Utterance:
    """The utterance whose word i is the i-th word of ``sources[i]``; the first source gives the beginning of the sound
    and the last one its end.

    Args:
        sources: one for each word, of as many words each, all of which can be cut; neighbours that are the same
            recording stay uncut.
        rate: Hz of all of them.
    """
    fade = round(FADE_S * rate)
    up = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    parts: list[np.ndarray] = []
    words: list[Word] = []
    at, leaving = 0, np.zeros(fade, np.float32)
    for source, run in groupby(enumerate(sources), lambda pair: pair[1]):
        places = [place for place, _ in run]
        begin, end = (_cut(source, place, rate) for place in (places[0], places[-1] + 1))
        part = source.wave[begin:end].copy()
        if parts:
            part[:fade] = leaving * (1 - up) + part[:fade] * up
        for word in source.words[places[0]:places[-1] + 1]:
            start, stop = (float(np.clip(t * rate, begin, end) - begin + at) / rate for t in (word.start, word.end))
            words.append(Word(word.text, start, stop))
        parts.append(part)
        at += len(part)
        leaving = np.pad(source.wave[end:end + fade], (0, max(end + fade - len(source.wave), 0)))
    return Utterance(np.concatenate(parts), words)


def in_a_row(said: Sequence[Utterance], pauses: Sequence[float], rate: int) -> Utterance:
    """One utterance after the other, with at most ``pauses[i]`` seconds of their own quiet between the words of i and
    those of i + 1, half of it from each."""
    fade = round(FADE_S * rate)
    up = np.linspace(0.0, 1.0, fade, dtype=np.float32)
    wave, words = said[0].wave, list(said[0].words)
    for after, pause in zip(said[1:], pauses, strict=True):
        end = min(round((words[-1].end + pause / 2) * rate) + fade, len(wave))
        begin = max(round((after.words[0].start - pause / 2) * rate), 0)
        coming = after.wave[begin:].copy()
        coming[:fade] = wave[end - fade:end] * (1 - up) + coming[:fade] * up
        later = (end - fade - begin) / rate
        last = words.pop()
        words.append(last._replace(end=min(last.end, after.words[0].start + later)))
        words += [Word(w.text, w.start + later, w.end + later) for w in after.words]
        wave = np.concatenate((wave[:end - fade], coming))
    return Utterance(wave, words)


def at_speed(said: Utterance, speed: float) -> Utterance:
    """The same, ``speed`` (to the nearest fraction of at most 1/50) times as fast and as high."""
    exact = Fraction(speed).limit_denominator(50)  # small numbers: the filter of two large ones fills the memory
    if exact == 1:
        return said
    wave = torchaudio.functional.resample(torch.from_numpy(said.wave), exact.numerator, exact.denominator).numpy()
    return Utterance(wave, [Word(w.text, w.start / float(exact), w.end / float(exact)) for w in said.words])


def _cut(source: Utterance, place: int, rate: int) -> int:
    """Where the word at ``place`` begins: the quietest sample around its border with the one before, a third of either
    word away from it at most; the sound's beginning and end before the first word and behind the last."""
    if place in (0, len(source.words)):
        return len(source.wave) if place else 0
    before, after = source.words[place - 1], source.words[place]
    border, window = (before.end + after.start) / 2, round(LOUDNESS_S * rate)
    reach = min(SEARCH_S, (before.end - before.start) / 3, (after.end - after.start) / 3)
    first, stop = round((border - reach) * rate), round((border + reach) * rate)
    around = source.wave[first - window // 2:stop + window].astype(np.float64)
    energy = np.convolve(around ** 2, np.ones(window), "valid")[:stop - first + 1]
    return first + int(energy.argmin())
