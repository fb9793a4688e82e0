"""espeak-ng through ctypes: sound, word events and phoneme events of one sentence.

The library keeps phase, flutter and random state between sentences, so a sentence's bytes would depend on what was said
before it. A fresh load per sentence (about 1 ms) and a fixed seed make speech a pure function of its arguments.
"""

from __future__ import annotations

import _ctypes
import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamchar.errors import InputError

_SYNCHRONOUS = 2
_PHONEME_EVENTS, _IPA, _DONT_EXIT = 1, 2, 0x8000
_UTF8_AND_PHONEMES = 1 | 0x100
_RATE, _PITCH, _RANGE = 1, 3, 4
_WORD, _PHONEME = 1, 7


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("milliseconds", ctypes.c_int), ("sample", ctypes.c_int),
                ("user", ctypes.c_void_p), ("id", _EventId)]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass
class Utterance:
    """Raw output of the synthesiser.

    Attributes:
        wave: (S,) float32 in [-1, 1].
        sample_rate: Hz (22050).
        words: (character position from 0, start in seconds) of each word event.
        phones: (IPA name, start in seconds) of each phoneme event; an empty name is a pause.
    """

    wave: np.ndarray
    sample_rate: int
    words: list[tuple[int, float]]
    phones: list[tuple[str, float]]


def synthesise(text: str, voice: str, rate: int, pitch: int, pitch_range: int = 50) -> Utterance:
    """Speak ``text``.

    Args:
        text: words; ``[[...]]`` holds espeak phoneme names.
        voice: espeak voice with variant, such as ``en-us+f3``.
        rate: words per minute, 80 to 450.
        pitch: 0 to 99, 50 is the voice's own.
        pitch_range: 0 to 99, liveliness of the melody.

    Raises:
        InputError: if espeak-ng is not installed, or has no such voice.
    """
    library, data = _load()
    chunks: list[np.ndarray] = []
    events: list[tuple[int, int, int, str]] = []

    def receive(wave: Any, count: int, event: Any) -> int:
        if wave and count > 0:
            chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        i = 0
        while event[i].type != 0:
            kind = event[i].type
            if kind in (_WORD, _PHONEME):
                name = event[i].id.string.decode("utf-8", "ignore") if kind == _PHONEME else ""
                events.append((kind, event[i].text_position, event[i].sample, name))
            i += 1
        return 0

    callback = _Callback(receive)
    try:
        hertz = library.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _PHONEME_EVENTS | _IPA | _DONT_EXIT)
        if hertz <= 0:
            raise InputError(f"espeak-ng does not start with the data in {data}; reinstall the extra: "
                             "pip install 'streamchar[puppet]'")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        library.espeak_SetSynthCallback(callback)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"espeak-ng has no voice {voice!r}; use for example 'en-us', 'en' or 'en-us+f3'")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(parameter, value, 0)
        body = text.encode()
        library.espeak_Synth(body, len(body) + 1, 0, 1, 0, _UTF8_AND_PHONEMES, None, None)
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)
    wave = np.concatenate(chunks).astype(np.float32) / 32768 if chunks else np.zeros(0, np.float32)
    words = [(position - 1, sample / hertz) for kind, position, sample, _ in events if kind == _WORD]
    phones = [(name, sample / hertz) for kind, _, sample, name in events if kind == _PHONEME]
    return Utterance(wave, hertz, words, phones)


def _load() -> tuple[Any, str]:
    try:
        import espeakng_loader
    except ImportError as error:
        raise InputError("the puppet's voice needs espeak-ng (GPL-3.0, hence an extra), which is not installed: "
                         "pip install 'streamchar[puppet]' (or espeakng-loader), or give your own shards with "
                         "data.shards=DIR") from error
    path = espeakng_loader.get_library_path()
    try:
        return ctypes.CDLL(path), espeakng_loader.get_data_path()
    except OSError as error:
        raise InputError(f"the espeak-ng library {path} cannot be loaded ({error}); "
                         "reinstall espeakng-loader") from error
