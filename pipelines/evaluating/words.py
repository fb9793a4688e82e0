"""What a recogniser hears in each rendering, and where forced alignment finds the words in the generated sound."""

from __future__ import annotations

import numpy as np
import torch
from rich.progress import Progress

from datamodules.conform import fit_wave
from datamodules.latent_shards import LatentStore
from pipelines.evaluating.material import HeldOut
from pipelines.evaluating.scores import clip_numbers, columns_of, words_per_chunk
from streamchar.clock import ChunkClock
from streamchar.evaluation.pointer_error import pointer_score, true_positions
from streamchar.evaluation.recogniser import SAMPLE_RATE, PocketsphinxAligner, Recogniser, recogniser_for
from streamchar.evaluation.report import Report
from streamchar.evaluation.words import score_words, shuffled_score

HEARD = "heard by pocketsphinx; in brackets 95 % of bootstrap over clips: "


def word_rows(report: Report, clips: list[HeldOut], train: LatentStore, clock: ChunkClock, main: str, seed: int,
              bar: Progress) -> None:
    """Word errors of every column; no model: what column ``main`` says, scored against other clips' transcripts."""
    recogniser = recogniser_for([*(c.record.text for c in train.clips), *(k.truth.text for k in clips)])
    texts = [clip.truth.text for clip in clips]
    columns = columns_of(clips)
    task = bar.add_task("hearing words", total=(len(columns) + 1) * len(clips))
    heard: dict[str, list[str]] = {}
    for column in columns:
        heard[column] = []
        for clip in clips:
            sound = clip.renderings[column].sound if column in clip.renderings else np.zeros(0, np.float32)
            heard[column].append(_hear(recogniser, sound, clock))
            _note(report, clip, column, heard[column][-1])
            bar.advance(task)
    scores = {c: score_words(texts, h, seed=seed) for c, h in heard.items()}
    values = {c: 100 * s.wer for c, s in scores.items()}
    if len(clips) > 1:
        values["baseline"] = 100 * shuffled_score(texts, heard[main], seed=seed).wer
    best = scores[main]
    report.add("words", "word errors", values, unit="%", baseline="shuffled transcripts",
               note=f"{HEARD}{main} [{100 * best.low:.0f}, {100 * best.high:.0f}]")
    report.add("words", "character errors", {c: 100 * s.cer for c, s in scores.items()}, unit="%")
    rng = np.random.default_rng(seed)
    noise = []
    for clip in clips:
        loudness = float(np.sqrt(np.mean(clip.renderings["codec"].sound ** 2)))
        noise.append(_hear(recogniser, rng.standard_normal(len(clip.renderings["codec"].sound)) * loudness, clock))
        bar.advance(task)
    report.add("words", "word errors of noise", {"baseline": 100 * score_words(texts, noise, seed=seed).wer}, unit="%",
               baseline="white noise as loud as the speech")


def _hear(recogniser: Recogniser, sound: np.ndarray, clock: ChunkClock) -> str:
    wave = fit_wave(torch.from_numpy(np.ascontiguousarray(sound, np.float32)), clock.sample_rate, SAMPLE_RATE)
    return " ".join(word.text for word in recogniser.hear(wave)) if len(wave) else ""


def _note(report: Report, clip: HeldOut, column: str, heard: str) -> None:
    """Write what was heard, and its errors, under the clip's video."""
    if column not in clip.renderings:
        return
    for row in report.clips:
        if row.key == clip.truth.key:
            row.heard[column] = heard
    clip_numbers(report, clip.truth.key, column, {"word errors %": 100 * score_words([clip.truth.text], [heard]).wer})


def aligned_pointer_rows(report: Report, clips: list[HeldOut], train: LatentStore, clock: ChunkClock,
                         main: str) -> None:
    """The pointer on generated sound against forced alignment of it, beside the constant rate.

    Alignment places every word of the text somewhere, also in babble: read this row beside the word errors.
    """
    aligner = PocketsphinxAligner()
    rate, found = words_per_chunk(train, clock), 0
    predicted, true, start, total = [], [], [], []
    for clip in clips:
        rendering = clip.renderings[main]
        wave = fit_wave(torch.from_numpy(rendering.sound), clock.sample_rate, SAMPLE_RATE)
        said = clip.prompt.words[0][:int(np.ceil(rendering.pointers[-1]))] if rendering.pointers else []
        words = aligner.align(wave, said) if said else None
        if words is None:
            continue
        found += 1
        ends = true_positions(words, len(rendering.pointers), float(clock.chunk_seconds))
        predicted += rendering.pointers
        true += ends.tolist()
        start += [0.0, *ends[:-1].tolist()]
        total += [float(len(said))] * len(ends)
    score = pointer_score(predicted, true, start, total, rate)
    report.add("pointer", "against alignment of its own sound, words", {main: score.error, "baseline": score.guess},
               note=f"{found} of {len(clips)} streams could be aligned"
                    + (f"; mean offset {score.bias:+.2f}" if score.chunks else ""),
               baseline=f"{rate:.2f} words a chunk")
