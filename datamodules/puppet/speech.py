"""One sentence of speech: a wave at the data set's rate, words and phones with their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from datamodules.puppet.espeak import Utterance, synthesise

STOPS = frozenset("pbtdkɡgʔ")
STOP_CLOSURE_S = 0.05
SPOKEN_FORMS = {"a": "[[eI]]"}
"""Letters of the GRID grammar that espeak would read as a word."""


@dataclass(frozen=True)
class Voice:
    """A speaker: espeak voice, words per minute, pitch and liveliness (0 to 99)."""

    name: str
    rate: int
    pitch: int
    liveliness: int


@dataclass(frozen=True)
class Span:
    """A word or phone with its time in seconds."""

    name: str
    start: float
    end: float

    def shifted(self, seconds: float) -> Span:
        """The same, later."""
        return replace(self, start=self.start + seconds, end=self.end + seconds)


@dataclass
class Speech:
    """wave (S,) float32 at ``sample_rate``, without silence at its ends; words and phones in order."""

    wave: np.ndarray
    sample_rate: int
    words: list[Span]
    phones: list[Span]

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.wave) / self.sample_rate


def speak(words: Sequence[str], voice: Voice, sample_rate: int, level_db: float = -21.0) -> Speech:
    """Say ``words`` as one sentence.

    Args:
        words: lower-case words; single letters are spelled out.
        voice: who speaks.
        sample_rate: of the wave, Hz.
        level_db: root mean square of the wave, dB of full scale, so that all voices are equally loud.

    Raises:
        InputError: if espeak-ng is not installed or lacks the voice.
    """
    forms = [SPOKEN_FORMS.get(w, w) for w in words]
    raw = synthesise(" ".join(forms), voice.name, voice.rate, voice.pitch, voice.liveliness)
    last = max(s for name, s in raw.phones if name)
    end = min((s for name, s in raw.phones if not name and s > last), default=len(raw.wave) / raw.sample_rate)
    wave = resample(raw.wave[: round(end * raw.sample_rate)], raw.sample_rate, sample_rate)
    loud = float(np.sqrt(np.mean(wave**2))) or 1.0
    gain = min(10 ** (level_db / 20) / loud, 0.9 / max(float(np.abs(wave).max()), 1e-6))
    return Speech((wave * gain).astype(np.float32), sample_rate, _words(words, forms, raw, end), _phones(raw, end))


def _words(words: Sequence[str], forms: Sequence[str], raw: Utterance, end: float) -> list[Span]:
    """A word lasts from its event to the next one's, less a pause; words that share an event share its time."""
    borders = np.cumsum([0] + [len(f) + 1 for f in forms])
    starts: dict[int, float] = {}
    for position, start in raw.words:
        starts.setdefault(min(int(np.searchsorted(borders, position, side="right")) - 1, len(words) - 1), start)
    starts.setdefault(0, 0.0)
    heads = sorted(starts)
    out: list[Span] = []
    for head, after in zip(heads, [*heads[1:], len(words)], strict=True):
        stop = starts[after] if after < len(words) else end
        pauses = [s for name, s in raw.phones if name == "" and starts[head] < s < stop]
        stop = min(pauses, default=stop)
        shares = np.cumsum([0.0] + [len(w) + 1.0 for w in words[head:after]])
        times = starts[head] + (stop - starts[head]) * shares / shares[-1]
        out += [Span(w, float(a), float(b)) for w, a, b in zip(words[head:after], times, times[1:], strict=False)]
    return out


def _phones(raw: Utterance, end: float) -> list[Span]:
    """Phones with ends. A stop's event marks its burst, so the closure before it belongs to the stop."""
    marks = [(name.strip("ˈˌ"), "ˈ" in name, s) for name, s in raw.phones if s < end]
    starts = []
    for i, (name, _, start) in enumerate(marks):
        floor = marks[i - 1][2] + 0.02 if i else 0.0
        starts.append(max(floor, start - STOP_CLOSURE_S) if name[:1] in STOPS else start)
    ends = [*starts[1:], end]
    return [Span(("ˈ" if stress else "") + name, a, max(b, a + 0.01))
            for (name, stress, _), a, b in zip(marks, starts, ends, strict=True) if name]


def resample(wave: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Band-limited resampling of a whole (S,) wave through its spectrum; ends should be quiet."""
    if rate == target:
        return wave
    step = rate // int(np.gcd(rate, target))
    padded = -(-(len(wave) + 512) // step) * step
    length = padded // step * (target // int(np.gcd(rate, target)))
    spectrum = np.fft.rfft(wave, padded)
    kept = np.zeros(length // 2 + 1, spectrum.dtype)
    count = min(len(kept), len(spectrum))
    kept[:count] = spectrum[:count]
    out = np.fft.irfft(kept, length) * (length / padded)
    return out[: round(len(wave) * target / rate)].astype(np.float32)
