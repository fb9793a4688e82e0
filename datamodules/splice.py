"""New sentences out of spoken ones: words of several recordings in a row, and the same at another speed.

Speed perturbation is that of Ko et al. 2015, "Audio augmentation for speech recognition": the sound is resampled, so
that pitch and pace change together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

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


@dataclass(frozen=True, eq=False)
class Utterance:
    """wave: (S,) float32 in [-1, 1], mono. words: spoken in it, with their seconds; at least one."""

    wave: np.ndarray
    words: list[Word]


def spliced(sources: Sequence[Utterance], rate: int) -> Utterance:
    """The utterance whose word i is the i-th word of ``sources[i]``; the first source gives the beginning of the sound
    and the last one its end.

    Args:
        sources: one for each word, of as many words each; neighbours that are the same recording stay uncut.
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
        end = max(end, begin + fade)
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


def at_speed(said: Utterance, speed: float, rate: int) -> Utterance:
    """The same, ``speed`` times as fast and as high; ``rate`` in Hz. ``speed`` x ``rate`` is rounded to whole Hz."""
    fast = round(rate * speed)
    if fast == rate:
        return said
    wave = torchaudio.functional.resample(torch.from_numpy(said.wave), fast, rate).numpy()
    return Utterance(wave, [Word(w.text, w.start * rate / fast, w.end * rate / fast) for w in said.words])


def _cut(source: Utterance, place: int, rate: int) -> int:
    """Where the word at ``place`` begins: the quietest sample around its border with the one before, so that a fade
    fits behind it; the sound's beginning and end before the first word and behind the last."""
    if place in (0, len(source.words)):
        return len(source.wave) if place else 0
    border = (source.words[place - 1].end + source.words[place].start) / 2
    window = round(LOUDNESS_S * rate)
    last = len(source.wave) - round(FADE_S * rate) - window
    first = min(max(round((border - SEARCH_S) * rate), 0), last)
    stop = min(max(round((border + SEARCH_S) * rate), first), last)
    energy = np.convolve(source.wave[first:stop + window].astype(np.float64) ** 2, np.ones(window), "valid")
    return first + int(energy.argmin()) + window // 2
