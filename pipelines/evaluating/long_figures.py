"""What is measured of one long stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipelines.evaluating.material import Rendering
from pipelines.evaluating.mouths import Mouth
from pipelines.evaluating.voices import wave_of
from pipelines.evaluating.words import hear
from streamchar.clock import ChunkClock
from streamchar.evaluation.drift import DriftScore, drift_score
from streamchar.evaluation.identity import identity_distance
from streamchar.evaluation.pointer_error import pointer_score, true_positions
from streamchar.evaluation.recogniser import PocketsphinxAligner, Recogniser
from streamchar.evaluation.stream_words import StreamWords, stream_words
from streamchar.evaluation.sync import sync_score
from streamchar.streaming.timing import TimingRecord

PIECE_S = 20.0
"""A recogniser hears a long stream in pieces of about so many seconds."""


@dataclass
class StreamFigures:
    """One stream: words, drift, lag and correlation of each window, identity of the last window, sound minus picture
    in frames, bytes of memory early and late, seconds per chunk, pointer error beside the constant rate (words)."""

    words: StreamWords | None
    drift: DriftScore
    lags: list[float]
    correlations: list[float]
    identity: float
    surplus_frames: float
    memory: tuple[int, int]
    chunk_s: list[float]
    pointer: tuple[float, float]


def figures_of(take: Rendering, record: TimingRecord, memory: tuple[int, int], transcript: list[str],
               reference: np.ndarray | None, recogniser: Recogniser | None, mouth: Mouth | None, clock: ChunkClock,
               windows: int, max_lag: int, rate: float, written_samples: int) -> StreamFigures:
    """Measure a stream that was generated from ``transcript``; ``rate``: mean words per chunk of the training set."""
    length = float(clock.chunk_seconds)
    words, pointer = None, (float("nan"), float("nan"))
    if recogniser is not None and take.pointers and max(take.pointers) >= 1:
        heard = [w for piece in pieces(take.sound, clock) for w in hear(recogniser, piece, clock).split()]
        words = stream_words(transcript, heard, take.pointers, length, windows)
        pointer = _pointer(take, transcript, clock, rate)
    size = len(take.frames) // windows
    lags, correlations = [], []
    for k in range(windows):
        frames = take.frames[k * size:(k + 1) * size]
        if mouth is None or len(frames) < 4 * max_lag:
            continue
        opening = mouth.detector.opening(frames)
        opening = np.nan_to_num(opening, nan=float(np.nanmean(opening)) if np.isfinite(opening).any() else 0.0)
        first, last = (round(n * size / clock.fps * clock.sample_rate) for n in (k, k + 1))
        score = sync_score(opening, take.sound[first:last], clock.fps, clock.sample_rate, max_lag)
        lags.append(score.lag)
        correlations.append(score.best)
    identity = float("nan") if reference is None else identity_distance(take.frames[-size:], reference)
    surplus = written_samples / clock.sample_rate * clock.fps - len(take.frames)
    return StreamFigures(words, drift_score(take.frames, clock.fps, len(take.frames) / clock.fps / windows), lags,
                         correlations, identity, surplus, memory, [c.total for c in record.chunks], pointer)


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


def _pointer(take: Rendering, transcript: list[str], clock: ChunkClock, rate: float) -> tuple[float, float]:
    """Error against forced alignment of the whole sound, chunk by chunk from the true position; nan: not alignable."""
    said = transcript[:int(np.ceil(take.pointers[-1]))]
    words = PocketsphinxAligner().align(wave_of(take.sound, clock), said)
    if words is None:
        return float("nan"), float("nan")
    ends = true_positions(words, len(take.pointers), float(clock.chunk_seconds))
    starts, total = [0.0, *ends[:-1].tolist()], [float(len(said))] * len(ends)
    score = pointer_score(take.pointers, ends.tolist(), starts, total, rate)
    return score.error, score.guess


def slope_of_times(chunk_s: list[float]) -> float:
    """Median seconds of the last third of the chunks over that of the first third; 1: no growth."""
    third = max(len(chunk_s) // 3, 1)
    early = torch.tensor(chunk_s[1:1 + third] or chunk_s).median()  # the first chunk warms up
    return float(torch.tensor(chunk_s[-third:]).median() / early)
