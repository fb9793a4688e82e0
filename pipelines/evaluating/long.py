"""The long protocol: streams of a minute or more, with and without sink and pointer, scored window by window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from datamodules.evaluation_set import EvaluationSet
from datamodules.latent_shards import LatentStore
from pipelines.config.schema import RunConfig
from pipelines.evaluating.long_figures import StreamFigures, figures_of, slope_of_times, state_bytes
from pipelines.evaluating.material import Rendering, Subject, held_out
from pipelines.evaluating.mouths import choose_mouth
from pipelines.evaluating.pointers import words_per_chunk
from pipelines.evaluating.sentences import new_sentences
from pipelines.evaluating.short import speakers_of
from pipelines.evaluating.streams import long_prompt
from pipelines.evaluating.words import grid
from pipelines.run_directory import RunDirectory
from streamchar.errors import InputError
from streamchar.evaluation.open_loop import OpenLoopOrchestrator
from streamchar.evaluation.recogniser import PocketsphinxBigram
from streamchar.evaluation.report import ClipRow, Report
from streamchar.evaluation.strip import still_image
from streamchar.rollout.character import Character
from streamchar.rollout.plan import SamplePlan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.muxer import write_clip
from streamchar.streaming.session import MemorySink, StreamSession, device_of
from streamchar.streaming.timing import TimingRecord
from streamchar.types import RolloutBatch

SETTLED = 8
"""Chunks after which memory has reached its size."""


@dataclass
class Variant:
    """One way of streaming: its column, the character, and whether it keeps a sink."""

    column: str
    character: Character
    use_sink: bool = True


def long_protocol(cfg: RunConfig, directory: RunDirectory, bar: Progress) -> Report:
    """The report on ``evaluate.streams`` streams of ``stream_s`` seconds of a run's model and its ablations.

    Raises:
        InputError: where the model or the latents are missing.
    """
    options = cfg.evaluate
    main = speakers_of(replace(cfg, evaluate=replace(options, teacher=False)), directory)[0]
    character = main.character
    clock, (video, audio) = character.clock, character.codecs()
    prints: dict[str, str | None] = {"video": video.fingerprint, "audio": audio.fingerprint}
    val = LatentStore(directory.input("encode", "latents/val"), clock, prints)
    train = LatentStore(directory.input("encode", "latents/train"), clock, prints)
    rate = words_per_chunk(train, clock)
    chosen = EvaluationSet(val, clock, character.window, character.units, options.streams, options.seed)
    clips = [held_out(chosen, i, clock, video, audio, cfg.data.size) for i in range(len(chosen))]
    texts = [c.record.text for c in train.clips]
    mouth = choose_mouth(options, train, clips, video)
    recogniser = PocketsphinxBigram([*texts, *(c.text for c in clips)]) if options.words else None
    open_loop = replace(character, orchestrator=OpenLoopOrchestrator(character.orchestrator, rate))
    variants = [Variant(main.column, character), Variant("no_sink", character, use_sink=False),
                Variant("open_loop", open_loop)]
    report = Report(f"Long streams of run {directory.name}", {
        "model": main.column, "from stage": options.from_stage, "steps": main.plan.steps, "streams": options.streams,
        "seconds": options.stream_s, "windows": options.windows, "seed": options.seed, "fps": clock.fps})
    found: dict[str, list[StreamFigures]] = {}
    task = bar.add_task("long streams", total=options.streams * len(variants))
    for i in range(options.streams):
        subject = clips[i % len(clips)]
        prompt = long_prompt(subject, _texts(texts, clips, options.stream_s * rate, options.seed + i), options.stream_s,
                             rate / float(clock.chunk_seconds))
        for variant in variants:
            bar.update(task, description=f"long streams, {variant.column}")
            take, record, memory, written = _stream(variant, prompt, main.plan, options.stream_s, options.seed + i)
            found.setdefault(variant.column, []).append(figures_of(
                take, record, memory, list(prompt.words[0]), subject.reference, recogniser, mouth, clock,
                options.windows, options.max_lag, rate, written))
            if i == 0:
                _show(report, directory, variant.column, take, subject, clock.fps, clock.sample_rate)
            bar.advance(task)
    _rows(report, found, options.windows, options.stream_s)
    report.notes.append("Each stream's three forms share prompt, transcript and noise. Words are heard by a bigram of "
                        "the training texts, so that repeats and insertions show.")
    return report


def _texts(known: list[str], clips: list[Subject], words: float, seed: int) -> list[str]:
    """Sentences that are not among the training texts, enough to outlast the stream."""
    if grid(known):
        return new_sentences(ceil(words / 6) * 2 + 2, known, seed)
    own = [c.text for c in clips]
    if not own:
        raise InputError("long streams need held-out clips with text")
    return [own[(seed + i) % len(own)] for i in range(len(own))]


def _stream(variant: Variant, prompt: RolloutBatch, plan: SamplePlan, seconds: float, seed: int
            ) -> tuple[Rendering, TimingRecord, tuple[int, int], int]:
    """One stream: the rendering, its times, bytes of memory early (``SETTLED`` chunks) and late, samples written."""
    character = variant.character
    clock, (video, audio) = character.clock, character.codecs()
    sink = _CountingSink(clock.fps, audio.sample_rate)
    session = StreamSession(clock, video, audio, [sink], [len(prompt.words[0])])
    memory = character.start(prompt.to(device_of(character.denoiser)), seed, variant.use_sink)
    early = 0
    try:
        most = ceil(seconds / float(clock.chunk_seconds) - 1e-6)
        for k, _ in enumerate(session.iterate(stream_chunks(character, memory, plan, most))):
            early = state_bytes(memory.state_dict()) if k <= SETTLED else early
    finally:
        session.finish()
    take = Rendering(sink.frames, sink.sound, list(session.pointers[0]))
    return take, session.record, (early, state_bytes(memory.state_dict())), sink.written


class _CountingSink(MemorySink):
    """Also counts the samples that came, before they are cut to the frames' length."""

    written = 0

    def write(self, frames: NDArray[np.uint8], samples: NDArray[np.floating]) -> None:
        self.written += len(samples)
        super().write(frames, samples)


def _show(report: Report, directory: RunDirectory, column: str, take: Rendering, subject: Subject, fps: float,
          rate: int) -> None:
    folder = directory.stage("evaluate") / "videos"
    if not report.clips:
        report.clips.append(ClipRow("the first stream", f"{subject.key}'s character"))
    row = report.clips[0]
    write_clip(folder / f"long-{column}.mp4", take.frames, take.sound, fps, rate)
    still_image(take.frames).save(folder / f"long-{column}-still.png")
    row.videos[column], row.posters[column] = f"videos/long-{column}.mp4", f"videos/long-{column}-still.png"


def _rows(report: Report, found: dict[str, list[StreamFigures]], windows: int, seconds: float) -> None:
    def measure(group: str, name: str, value: Callable[[StreamFigures], float], unit: str = "", better: str = "low",
                note: str = "") -> None:
        report.measure(group, name, {c: [value(f) for f in figures] for c, figures in found.items()}, unit=unit,
                       better=better, note=note)

    def window(k: int) -> Callable[[StreamFigures], float]:
        return lambda f: 100 * f.words.window(k) if f.words else float("nan")

    nan = float("nan")
    if any(f.words for figures in found.values() for f in figures):
        measure("words", "word errors", lambda f: 100 * f.words.wer if f.words else nan, unit="%",
                note="of the words that the pointer has passed")
        measure("words", "first window", window(0), unit="%")
        measure("words", "last window", window(windows - 1), unit="%")
        measure("words", "last less first", lambda f: window(windows - 1)(f) - window(0)(f), unit="%",
                note="at most 5 points are asked for")
        measure("words", "never heard", lambda f: 100 * f.words.missed if f.words else nan, unit="%",
                note="words that the pointer passed and nobody heard")
        measure("words", "words due", lambda f: float(f.words.words) if f.words else nan, note="per stream")
        report.measure("pointer", "against alignment of its own sound, words",
                       {c: [f.pointer[0] for f in figures] for c, figures in found.items()},
                       _guess(found), note="read beside the word errors: alignment places words in babble too",
                       baseline="constant rate from the true position")
    measure("sync", "lag, last window", lambda f: f.lags[-1] if f.lags else nan, unit="frames")
    measure("sync", "correlation, first window", lambda f: f.correlations[0] if f.correlations else nan, better="high")
    measure("sync", "correlation, last window", lambda f: f.correlations[-1] if f.correlations else nan, better="high")
    measure("sync", "sound longer than picture, frames", lambda f: f.surplus_frames, note="at the stream's end")
    measure("drift", "slope per minute", lambda f: f.drift.slope, note="distance to the first window")
    measure("drift", "last window from first", lambda f: f.drift.last)
    measure("drift", "last window from the reference", lambda f: f.identity)
    measure("constancy", "time per chunk, late over early", lambda f: slope_of_times(f.chunk_s))
    measure("constancy", "memory at the end over early", lambda f: f.memory[1] / max(f.memory[0], 1))
    report.curves["word errors, %, over stream time (s)"] = _curves(found, windows, seconds, window)
    report.curves["distance to the first window over time (s)"] = {
        c: [(t, float(np.mean([f.drift.curve[k][1] for f in fs])))
            for k, (t, _) in enumerate(fs[0].drift.curve)] for c, fs in found.items()
        if len({len(f.drift.curve) for f in fs}) == 1}
    report.curves["seconds of work per chunk"] = {
        c: [(float(k), s) for k, s in enumerate(figures[0].chunk_s)] for c, figures in found.items()}


def _guess(found: dict[str, list[StreamFigures]]) -> dict[str, float]:
    """The constant rate's error on the model's own streams; nothing where none could be aligned."""
    guesses = [f.pointer[1] for f in next(iter(found.values())) if np.isfinite(f.pointer[1])]
    return {"baseline": float(np.mean(guesses))} if guesses else {}


def _curves(found: dict[str, list[StreamFigures]], windows: int, seconds: float,
            window: Callable[[int], Callable[[StreamFigures], float]]) -> dict[str, list[tuple[float, float]]]:
    """Mean over streams of every window's word errors, at the window's middle."""
    out = {}
    for column, figures in found.items():
        points = [((k + 0.5) * seconds / windows, [window(k)(f) for f in figures]) for k in range(windows)]
        out[column] = [(t, float(np.nanmean(v))) for t, v in points if np.isfinite(v).any()]
    return out
