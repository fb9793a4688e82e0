"""Rows of the report on the pointer: words of error beside the constant-rate guess."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datamodules.latent_shards import LatentStore
from pipelines.evaluating.material import Rendering, Subject
from pipelines.evaluating.voices import wave_of
from streamchar.clock import ChunkClock
from streamchar.evaluation.bootstrap import interval
from streamchar.evaluation.pointer_error import PointerScore, mean_words_per_chunk, pointer_score, true_positions
from streamchar.evaluation.pointer_track import PointerTrack
from streamchar.evaluation.recogniser import PocketsphinxAligner
from streamchar.evaluation.report import Report
from streamchar.transcript import Word, normalise_words


def words_per_chunk(train: LatentStore, clock: ChunkClock) -> float:
    """The training set's mean words per chunk: the pointer that needs no model."""
    records = [c.record for c in train.clips if c.record.recorded]
    return mean_words_per_chunk([r.timed for r in records], [r.seconds for r in records], float(clock.chunk_seconds))


def pointer_rows(report: Report, forced: Sequence[PointerTrack], free: Sequence[PointerTrack], rate: float, main: str
                 ) -> None:
    """Pointer on real sound, a track per clip, beside the constant rate: from the true position and from its own."""
    clips = [str(i) for i in range(len(forced))]
    score, intervals = _pooled(forced, clips, rate, main)
    report.add("pointer", "error on real sound, words", {main: score.error, "baseline": score.guess}, intervals,
               note=f"{score.chunks} held-out chunks, each from the true position; {score.ratio:.2f} of the guess",
               baseline=f"{rate:.2f} words a chunk")
    loose, intervals = _pooled(free, clips, rate, main)
    report.add("pointer", "running on by itself, words", {main: loose.error}, intervals,
               note=f"from its own position, chunk after chunk; mean offset {loose.bias:+.2f}")


def _pooled(tracks: Sequence[PointerTrack], clips: Sequence[str], rate: float, main: str
            ) -> tuple[PointerScore, dict[str, tuple[float, float]]]:
    """The score of all tracks' chunks, and the interval of the error over clips: tracks of one clip (its seeds) are
    drawn together."""
    whole, sums = PointerTrack(), dict[str, NDArray[np.float64]]()
    for clip, track in zip(clips, tracks, strict=True):
        whole.extend(track)
        own = pointer_score(track.predicted, track.true, track.start, track.total, rate)
        if own.chunks:
            sums[clip] = sums.get(clip, np.zeros(2)) + (own.error * own.chunks, own.chunks)
    score = pointer_score(whole.predicted, whole.true, whole.start, whole.total, rate)
    if len(sums) < 2:
        return score, {}
    return score, {main: interval(np.stack([*sums.values()]), lambda t: float(t[:, 0].sum() / t[:, 1].sum()))}


def aligned_pointer_rows(report: Report, subjects: list[Subject], rate: float, clock: ChunkClock, main: str) -> None:
    """The pointer on generated sound against forced alignment of it, beside the constant rate.

    Alignment places every word of the text somewhere, also in babble: read this row beside the word errors.
    """
    aligner = PocketsphinxAligner()
    takes = [(s, s.renderings[main]) for s in subjects if main in s.renderings]
    clips, tracks = list[str](), list[PointerTrack]()
    for subject, take in takes:
        words = aligned_words(aligner, subject, take, clock)
        if words is None:
            continue
        ends = true_positions(words, len(take.pointers), float(clock.chunk_seconds)).tolist()
        clips.append(subject.group)
        tracks.append(PointerTrack(take.pointers, ends, [0.0, *ends[:-1]], [float(len(words))] * len(ends)))
    score, intervals = _pooled(tracks, clips, rate, main)
    report.add("pointer", "against alignment of its own sound, words", {main: score.error, "baseline": score.guess},
               intervals, note=f"{len(tracks)} of {len(takes)} streams could be aligned"
                    + (f"; mean offset {score.bias:+.2f}" if score.chunks else ""),
               baseline=f"{rate:.2f} words a chunk")


def aligned_words(aligner: PocketsphinxAligner, subject: Subject, take: Rendering, clock: ChunkClock
                  ) -> list[Word] | None:
    """When the words that the pointer has passed are spoken in a generated sound; None where they do not fit it."""
    said = normalise_words(subject.text)[:int(np.ceil(take.pointers[-1]))] if take.pointers else []
    return aligner.align(wave_of(take.sound, clock), said) if said else None
