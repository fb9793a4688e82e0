"""Which words are heard in a sound: pocketsphinx with the GRID grammar or with a bigram of given sentences.

Clean synthetic speech is badly heard as it is (digital silence upsets the recogniser): every sound is padded with
silence, halved and given white noise 27 dB below it, always the same noise.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamchar.errors import InputError
from streamchar.evaluation.bigram import bigram_arpa
from streamchar.evaluation.pronunciation import spell_phones
from streamchar.transcript import Word, normalise_words

SAMPLE_RATE = 16000
PAD_S = 0.3
GAIN = 0.5
DITHER_DB = 27.0
FRAMES_PER_S = 100

GRID_SLOTS: dict[str, Sequence[str]] = {
    "command": ("bin", "lay", "place", "set"),
    "colour": ("blue", "green", "red", "white"),
    "preposition": ("at", "by", "in", "with"),
    "letter": tuple("abcdefghijklmnopqrstuvxyz"),
    "digit": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "adverb": ("again", "now", "please", "soon"),
}
"""The GRID grammar: one word of each slot, in this order (there is no letter w)."""


class Recogniser(Protocol):
    """Hears words. The same sound always gives the same words."""

    def hear(self, wave: Tensor) -> list[Word]:
        """(S,) at 16 kHz -> the words in order with their seconds; empty where nothing is recognised."""


class PocketsphinxGrid:
    """Hears GRID sentences and nothing else: exactly one, or with ``several`` one after another."""

    def __init__(self, several: bool = False) -> None:
        slots = "".join(f"<{name}> = {' | '.join(words)};\n" for name, words in GRID_SLOTS.items())
        sentence = " ".join(f"<{name}>" for name in GRID_SLOTS)
        self._decoder = _open()
        top = "<one>+" if several else "<one>"
        self._decoder.add_jsgf_string("grid", f"#JSGF V1.0;\ngrammar grid;\npublic <all> = {top};\n"
                                              f"<one> = {sentence};\n{slots}")
        self._decoder.activate_search("grid")

    def hear(self, wave: Tensor) -> list[Word]:
        """See :class:`Recogniser`."""
        return _decode(self._decoder, wave)


class PocketsphinxBigram:
    """Hears free speech made of the words of given sentences, the likelier the more often they follow one another.

    Args:
        sentences: the language: any set of transcripts, best with many more than are tested.
    """

    def __init__(self, sentences: Iterable[str | Sequence[str]]) -> None:
        texts = [normalise_words(s) if isinstance(s, str) else list(s) for s in sentences]
        texts = [t for t in texts if t]
        if not texts:
            raise InputError("a recogniser of sentences needs at least one sentence with words; give it transcripts")
        with tempfile.TemporaryDirectory() as folder:
            spoken, path = Path(folder) / "words.dict", Path(folder) / "bigram.lm"
            spoken.write_text(_pronunciations({w for t in texts for w in t}))
            path.write_text(bigram_arpa(texts))
            # beside the whole dictionary a language model takes many seconds to load; the words are the same
            self._decoder = _open(dict=str(spoken))
            self._decoder.add_lm_file("bigram", str(path))
        self._decoder.activate_search("bigram")

    def hear(self, wave: Tensor) -> list[Word]:
        """See :class:`Recogniser`."""
        return _decode(self._decoder, wave)


class PocketsphinxAligner:
    """When the words of a known text are spoken (to within some 60 ms)."""

    def __init__(self) -> None:
        self._decoder = _open()

    def align(self, wave: Tensor, words: Sequence[str]) -> list[Word] | None:
        """(S,) at 16 kHz and what is said in it -> the words with their seconds; None where the text does not fit.

        Raises:
            InputError: if there are no words.
        """
        if not words:
            raise InputError("there is nothing to align: the text is empty")
        _teach(self._decoder, set(words))
        self._decoder.set_align_text(" ".join(words))
        found = _decode(self._decoder, wave)
        return found if [w.text for w in found] == list(words) else None


def recogniser_for(sentences: Iterable[str]) -> Recogniser:
    """The sharpest recogniser that fits ``sentences``: the GRID grammar if all of them follow it, else a bigram."""
    texts = [normalise_words(s) for s in sentences]
    counts = {grid_sentences(t) for t in texts if t}
    if counts and 0 not in counts:
        return PocketsphinxGrid(several=counts != {1})
    return PocketsphinxBigram(texts)


def grid_sentences(words: Sequence[str]) -> int:
    """How many GRID sentences ``words`` are made of; 0 if they are anything else."""
    slots = list(GRID_SLOTS.values())
    fits = all(word in slots[i % len(slots)] for i, word in enumerate(words))
    return len(words) // len(slots) if fits and len(words) % len(slots) == 0 else 0


def prepare_sound(wave: Tensor) -> NDArray[np.int16]:
    """(S,) in [-1, 1] -> padded, halved, dithered samples as the recogniser takes them.

    Raises:
        InputError: if the sound is not (S,) or not finite.
    """
    if wave.ndim != 1 or not bool(torch.isfinite(wave).all()):
        raise InputError(f"a sound must be (samples,) and finite, got {tuple(wave.shape)}")
    pad = int(PAD_S * SAMPLE_RATE)
    samples = np.pad(wave.detach().cpu().numpy().astype(np.float64) * GAIN, (pad, pad))
    loud = float(np.sqrt(np.mean(samples[pad:-pad] ** 2))) if len(wave) else 0.0
    noise = np.random.default_rng(0).standard_normal(len(samples))
    samples += noise * max(loud, 1e-3) * 10 ** (-DITHER_DB / 20)
    return (np.clip(samples, -1, 1) * 32767).astype(np.int16)


def _open(**more: str) -> Any:
    try:
        import pocketsphinx
    except ImportError as error:
        raise InputError("hearing words needs pocketsphinx; install the 'eval' extra: pip install .[eval]") from error
    return pocketsphinx.Decoder(lm=None, samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL", **more)


def _pronunciations(words: set[str]) -> str:
    """A dictionary of ``words`` alone: as the whole one says them, each way, or spelled where it lacks them."""
    whole, lines = _open(), []
    _teach(whole, words)
    for word in sorted(words):
        entry, ways = word, 1
        while (phones := whole.lookup_word(entry)) is not None:
            lines.append(f"{entry} {phones}\n")
            ways += 1
            entry = f"{word}({ways})"
    return "".join(lines)


def _teach(decoder: Any, words: set[str]) -> None:
    """Give the dictionary a pronunciation of every word that it lacks."""
    for word in sorted(words):
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, " ".join(spell_phones(word)), True)


def _decode(decoder: Any, wave: Tensor) -> list[Word]:
    decoder.reinit_feat()  # else words and times depend on the noise of what was heard before
    decoder.start_utt()
    decoder.process_raw(prepare_sound(wave).tobytes(), full_utt=True)
    decoder.end_utt()
    if decoder.hyp() is None:
        return []
    words = []
    for segment in decoder.seg() or ():
        text = segment.word.split("(")[0]
        if text and not text.startswith(("<", "[", "++")):
            words.append(Word(text, max(segment.start_frame / FRAMES_PER_S - PAD_S, 0.0),
                              max((segment.end_frame + 1) / FRAMES_PER_S - PAD_S, 0.0)))
    return words
