"""Rows of the report on the pointer: words of error beside the constant-rate guess."""

from __future__ import annotations

import numpy as np

from datamodules.latent_shards import LatentStore
from pipelines.evaluating.material import Rendering, Subject
from pipelines.evaluating.voices import wave_of
from streamchar.clock import ChunkClock
from streamchar.evaluation.pointer_error import mean_words_per_chunk, pointer_score, true_positions
from streamchar.evaluation.pointer_track import PointerTrack
from streamchar.evaluation.recogniser import PocketsphinxAligner
from streamchar.evaluation.report import Report
from streamchar.transcript import Word, normalise_words


def words_per_chunk(train: LatentStore, clock: ChunkClock) -> float:
    """The training set's mean words per chunk: the pointer that needs no model."""
    records = [c.record for c in train.clips if c.record.recorded]
    return mean_words_per_chunk([r.timed for r in records], [r.seconds for r in records], float(clock.chunk_seconds))


def pointer_rows(report: Report, forced: PointerTrack, free: PointerTrack, rate: float, main: str) -> None:
    """Pointer on real sound beside the constant rate, from the true position and from its own."""
    score = pointer_score(forced.predicted, forced.true, forced.start, forced.total, rate)
    report.add("pointer", "error on real sound, words", {main: score.error, "baseline": score.guess},
               note=f"{score.chunks} held-out chunks, each from the true position; {score.ratio:.2f} of the guess",
               baseline=f"{rate:.2f} words a chunk")
    loose = pointer_score(free.predicted, free.true, free.start, free.total, rate)
    report.add("pointer", "running on by itself, words", {main: loose.error},
               note=f"from its own position, chunk after chunk; mean offset {loose.bias:+.2f}")


def aligned_pointer_rows(report: Report, subjects: list[Subject], rate: float, clock: ChunkClock, main: str) -> None:
    """The pointer on generated sound against forced alignment of it, beside the constant rate.

    Alignment places every word of the text somewhere, also in babble: read this row beside the word errors.
    """
    aligner = PocketsphinxAligner()
    predicted, true, start, total = [], [], [], []
    takes = [(s, s.renderings[main]) for s in subjects if main in s.renderings]
    found = 0
    for subject, take in takes:
        words = aligned_words(aligner, subject, take, clock)
        if words is None:
            continue
        found += 1
        ends = true_positions(words, len(take.pointers), float(clock.chunk_seconds))
        predicted += take.pointers
        true += ends.tolist()
        start += [0.0, *ends[:-1].tolist()]
        total += [float(len(words))] * len(ends)
    score = pointer_score(predicted, true, start, total, rate)
    report.add("pointer", "against alignment of its own sound, words", {main: score.error, "baseline": score.guess},
               note=f"{found} of {len(takes)} streams could be aligned"
                    + (f"; mean offset {score.bias:+.2f}" if score.chunks else ""),
               baseline=f"{rate:.2f} words a chunk")


def aligned_words(aligner: PocketsphinxAligner, subject: Subject, take: Rendering, clock: ChunkClock
                  ) -> list[Word] | None:
    """When the words that the pointer has passed are spoken in a generated sound; None where they do not fit it."""
    said = normalise_words(subject.text)[:int(np.ceil(take.pointers[-1]))] if take.pointers else []
    return aligner.align(wave_of(take.sound, clock), said) if said else None
