"""What is measured of one long stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from math import ceil

import numpy as np
import torch
from torch import Tensor

from pipelines.evaluating.material import Rendering, Subject
from pipelines.evaluating.mouths import Mouth
from pipelines.evaluating.voices import wave_of
from streamchar.clock import ChunkClock
from streamchar.evaluation.drift import DriftScore, drift_score
from streamchar.evaluation.identity import identity_distance
from streamchar.evaluation.pointer_error import pointer_score, true_positions
from streamchar.evaluation.recogniser import PocketsphinxAligner, Recogniser
from streamchar.evaluation.repetition import RepetitionScore, repetition_score
from streamchar.evaluation.stream_words import StreamWords, dead_stream, stream_words, words_passed
from streamchar.evaluation.sync import SyncScore, sync_score
from streamchar.streaming.timing import TimingRecord
from streamchar.transcript import Word

PIECE_S = 20.0
"""A recogniser hears a long stream in pieces of about so many seconds."""


@dataclass(frozen=True)
class Gauge:
    """What all streams are measured with. rate: mean words per chunk of the training set. windows: equal parts of a
    stream. max_lag: frames between mouth and sound that are searched, each way."""

    clock: ChunkClock
    rate: float
    windows: int
    max_lag: int
    recogniser: Recogniser | None = None
    mouth: Mouth | None = None

    @property
    def chunk_s(self) -> float:
        """Seconds of a chunk."""
        return float(self.clock.chunk_seconds)


@dataclass
class LongTake:
    """A generated stream: its rendering, its times, bytes of the stream memory early and late, and the samples
    that came before they were cut to the picture's length."""

    rendering: Rendering
    record: TimingRecord
    memory: tuple[int, int]
    written: int


@dataclass
class SpokenStream:
    """The words of a stream, generated or joined from clips: what was to be said, what was heard and when, words said
    at chunk ends (true ones for clips), and the scores."""

    transcript: list[str]
    heard: list[Word]
    pointers: list[float]
    words: StreamWords
    repeats: RepetitionScore


@dataclass
class StreamFigures:
    """One generated stream: drift, mouth against sound in each window (none where windows are too short), identity of
    the last window, sound minus picture in frames, bytes of stream memory early and late, seconds per chunk, pointer
    error beside the constant rate (words; nan where nothing could be aligned)."""

    drift: DriftScore
    sync: list[SyncScore]
    identity: float
    surplus_frames: float
    memory: tuple[int, int]
    chunk_s: list[float]
    pointer: tuple[float, float]


def figures_of(take: LongTake, transcript: list[str], reference: np.ndarray | None, gauge: Gauge) -> StreamFigures:
    """Measure all but the words of a stream that was generated from ``transcript``."""
    shown, clock = take.rendering, gauge.clock
    size = max(len(shown.frames) // gauge.windows, 1)
    identity = float("nan") if reference is None else identity_distance(shown.frames[-size:], reference)
    pointer = _pointer(shown, transcript, gauge) if gauge.recogniser is not None else (float("nan"), float("nan"))
    drift = drift_score(shown.frames[:size * gauge.windows], clock.fps, size / clock.fps)
    surplus = take.written / clock.sample_rate * clock.fps - len(shown.frames)
    return StreamFigures(drift, _sync(shown, size, gauge), identity, surplus, take.memory,
                         [c.total for c in take.record.chunks], pointer)


def spoken_stream(sound: np.ndarray, transcript: list[str], pointers: list[float], recogniser: Recogniser,
                  gauge: Gauge) -> SpokenStream:
    """Hear a stream and score its words."""
    heard = heard_words(recogniser, sound, gauge.clock)
    words = score_against(transcript, heard, pointers, gauge)
    said = " ".join(transcript[:words.words])
    return SpokenStream(transcript, heard, pointers, words,
                        repetition_score([said], [" ".join(w.text for w in heard)]))


def score_against(transcript: list[str], heard: list[Word], pointers: list[float], gauge: Gauge) -> StreamWords:
    """Word errors of a stream; one whose pointer passed no word is dead, and has missed all of them."""
    if words_passed(pointers):
        return stream_words(transcript, heard, pointers, gauge.chunk_s, gauge.windows)
    return dead_stream(transcript, max(len(pointers), 1), gauge.rate, gauge.chunk_s, gauge.windows)


def heard_words(recogniser: Recogniser, sound: np.ndarray, clock: ChunkClock) -> list[Word]:
    """The words of a long sound, heard piece by piece, with their seconds in the whole."""
    words, start = [], 0.0
    for piece in pieces(sound, clock):
        if len(piece):
            words += [Word(w.text, start + w.start, start + w.end) for w in recogniser.hear(wave_of(piece, clock))]
        start += len(piece) / clock.sample_rate
    return words


def joined_streams(clips: list[Subject], column: str, streams: int, seconds: float, gauge: Gauge
                   ) -> Iterator[tuple[np.ndarray, list[str], list[float]]]:
    """Clips one after another, up to ``seconds``: the sound, the words said, and how many of them at each chunk's end.

    A stream ends where the next clip would not fit (but holds one), and the next stream goes on with that clip; when
    all clips were used they begin again. No clip with ``column`` and word times: no streams.
    """
    usable = [c for c in clips
              if column in c.renderings and len(c.renderings[column].sound) and c.truth is not None and c.truth.words]
    if not usable:
        return
    turn = cycle(usable)
    clip = next(turn)
    for _ in range(streams):
        sounds: list[np.ndarray] = []
        words: list[Word] = []
        end = 0.0
        while not sounds or end + len(clip.renderings[column].sound) / gauge.clock.sample_rate <= seconds:
            sounds.append(clip.renderings[column].sound)
            words += [Word(w.text, end + w.start, end + w.end) for w in (clip.truth.words if clip.truth else [])]
            end += len(sounds[-1]) / gauge.clock.sample_rate
            clip = next(turn)
        chunks = max(ceil(end / gauge.chunk_s - 1e-6), 1)
        yield np.concatenate(sounds), [w.text for w in words], true_positions(words, chunks, gauge.chunk_s).tolist()


def pieces(sound: np.ndarray, clock: ChunkClock) -> list[np.ndarray]:
    """A long sound cut at the quietest place near each multiple of ``PIECE_S``, so that no word is cut."""
    step, near, hush = (round(s * clock.sample_rate) for s in (PIECE_S, 1.5, 0.05))
    cuts = [0]
    while len(sound) - cuts[-1] > step + near:
        first = cuts[-1] + step - near
        energy = np.convolve(np.square(sound[first:first + 2 * near], dtype=np.float64), np.ones(hush), "valid")
        cuts.append(first + int(energy.argmin()) + hush // 2)
    return [sound[a:b] for a, b in zip(cuts, [*cuts[1:], len(sound)], strict=True)]


def state_bytes(state: object) -> int:
    """Bytes of all tensors in a nested state."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(state_bytes(v) for v in state.values())
    return sum(state_bytes(v) for v in state) if isinstance(state, (list, tuple)) else 0


def slope_of_times(chunk_s: list[float]) -> float:
    """Median seconds of the last third of the chunks over that of the first third; 1: no growth."""
    third = max(len(chunk_s) // 3, 1)
    early = torch.tensor(chunk_s[1:1 + third] or chunk_s).median()  # the first chunk warms up
    return float(torch.tensor(chunk_s[-third:]).median() / early)


def _sync(shown: Rendering, size: int, gauge: Gauge) -> list[SyncScore]:
    """Mouth against sound in each window of ``size`` frames; none where windows are too short for the search."""
    if gauge.mouth is None or size < 4 * gauge.max_lag:
        return []
    found = []
    clock = gauge.clock
    for k in range(gauge.windows):
        opening = gauge.mouth.detector.opening(shown.frames[k * size:(k + 1) * size])
        opening = np.nan_to_num(opening, nan=float(np.nanmean(opening)) if np.isfinite(opening).any() else 0.0)
        first, last = (round(n * size / clock.fps * clock.sample_rate) for n in (k, k + 1))
        found.append(sync_score(opening, shown.sound[first:last], clock.fps, clock.sample_rate, gauge.max_lag))
    return found


def _pointer(shown: Rendering, transcript: list[str], gauge: Gauge) -> tuple[float, float]:
    """Error against forced alignment of the whole sound, and the constant rate's; nan: no word passed, or no alignment.

    As ``pointers.aligned_pointer_rows``, which pools the chunks of all clips; here a stream is one value.
    """
    said = transcript[:ceil(shown.pointers[-1])] if words_passed(shown.pointers) else []
    words = PocketsphinxAligner().align(wave_of(shown.sound, gauge.clock), said) if said else None
    if words is None:
        return float("nan"), float("nan")
    ends = true_positions(words, len(shown.pointers), gauge.chunk_s)
    starts, total = [0.0, *ends[:-1].tolist()], [float(len(said))] * len(ends)
    score = pointer_score(shown.pointers, ends.tolist(), starts, total, gauge.rate)
    return score.error, score.guess
