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
from pipelines.evaluating.long_figures import (
    Gauge,
    LongTake,
    figures_of,
    heard_words,
    joined_streams,
    score_against,
    spoken_stream,
    state_bytes,
)
from pipelines.evaluating.long_rows import SETTLED, Findings, long_picture_rows, long_word_rows
from pipelines.evaluating.material import Rendering, Subject, held_out
from pipelines.evaluating.mouths import choose_mouth
from pipelines.evaluating.pointers import words_per_chunk
from pipelines.evaluating.sentences import new_sentences
from pipelines.evaluating.short import Speaker, speakers_of
from pipelines.evaluating.streams import long_prompt
from pipelines.evaluating.words import bigram_of, grid
from pipelines.free_memory import check_memory
from pipelines.run_directory import RunDirectory
from streamchar.clock import ChunkClock
from streamchar.errors import InputError
from streamchar.evaluation.bigram import in_rows
from streamchar.evaluation.config import EvaluateConfig
from streamchar.evaluation.open_loop import OpenLoopOrchestrator, units_at_rate
from streamchar.evaluation.report import TITLES, ClipRow, Report
from streamchar.evaluation.strip import still_image
from streamchar.rollout.character import Character
from streamchar.rollout.plan import SamplePlan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.decoding import device_of
from streamchar.streaming.muxer import write_clip
from streamchar.streaming.session import StreamSession
from streamchar.streaming.sinks import MemorySink
from streamchar.transcript import normalise_words
from streamchar.types import RolloutBatch


@dataclass
class Variant:
    """One way of streaming: its column, the character, and whether it keeps a sink."""

    column: str
    character: Character
    use_sink: bool = True


@dataclass
class Material:
    """What the streams are made from: held-out clips (``show`` renders number n of ``chosen``), those whose characters
    stream, and the training texts."""

    chosen: EvaluationSet
    show: Callable[[int], Subject]
    clips: list[Subject]
    known: list[str]

    def prompt(self, number: int, options: EvaluateConfig, gauge: Gauge) -> RolloutBatch:
        """The prompt of stream ``number``, with text that outlasts it."""
        per_second = gauge.rate / gauge.chunk_s
        held = [clip.record.text for clip in self.chosen.clips]
        texts = _texts(self.known, held, options.stream_s * max(per_second, 1.0), options.seed + number)
        return long_prompt(self.clips[number % len(self.clips)], texts, options.stream_s, per_second)

    def to_join(self, seconds: float) -> list[Subject]:
        """Held-out clips of ``seconds`` in all, or as many as there are; only the first of them keep their pictures."""
        out = list(self.clips)
        length = sum(clip.truth.seconds for clip in out if clip.truth is not None)
        while length < seconds and len(out) < len(self.chosen):
            clip = self.show(len(out))
            length += clip.truth.seconds if clip.truth is not None else 0.0
            out.append(replace(clip, renderings={c: r.unseen() for c, r in clip.renderings.items()}))
        return out


def long_protocol(cfg: RunConfig, directory: RunDirectory, bar: Progress) -> Report:
    """The report on ``evaluate.streams`` streams of ``stream_s`` seconds of a run's model and its ablations.

    Raises:
        InputError: where the model or the latents are missing.
    """
    options = cfg.evaluate
    main = speakers_of(replace(cfg, evaluate=replace(options, teacher=False)), directory)[0]
    check_memory(round(2 * options.stream_s * main.character.clock.fps * 3 * cfg.data.size**2),  # until it is joined
                 f"pictures of a stream of {options.stream_s:g} s", "choose a smaller evaluate.stream_s")
    material, gauge = _prepare(cfg, directory, main.character)
    report = Report(f"Long streams of run {directory.name}", {
        "model": TITLES[main.column], "from stage": options.from_stage, "steps": main.plan.steps,
        "streams": options.streams, "seconds": options.stream_s, "windows": options.windows, "seed": options.seed,
        "fps": gauge.clock.fps})
    found = Findings()
    report.notes += _join(found, material, options, gauge, bar)
    task = bar.add_task("long streams", total=options.streams * 3)
    for i in range(options.streams):
        subject, prompt = material.clips[i % len(material.clips)], material.prompt(i, options, gauge)
        for variant in _variants(main, prompt, gauge):
            bar.update(task, description=f"long streams, {variant.column}")
            take = _stream(variant, prompt, main.plan, options.stream_s, options.seed + i)
            _measure(found, variant.column, take, list(prompt.words[0]), subject.reference, gauge)
            if i == 0:
                _show(report, directory, variant.column, take.rendering, subject, gauge.clock)
            if variant.column == main.column:
                _hear_noise(found, take.rendering, list(prompt.words[0]), options.seed + i, gauge)
            bar.advance(task)
    long_word_rows(report, found, main.column, options.stream_s, gauge)
    long_picture_rows(report, found.figures)
    report.notes.append("Each stream's three forms share prompt, transcript and noise. Words are heard by a bigram of "
                        "the run's texts in a row, so that repeats and insertions show. Real clips and the codec "
                        "floor: held-out clips one after another, heard and scored as streams, with the true times of "
                        "their words.")
    return report


def _prepare(cfg: RunConfig, directory: RunDirectory, character: Character) -> tuple[Material, Gauge]:
    """What the streams are made from, and what they are measured with."""
    options, clock, (video, audio) = cfg.evaluate, character.clock, character.codecs()
    prints: dict[str, str | None] = {"video": video.fingerprint, "audio": audio.fingerprint}
    val = LatentStore(directory.input("encode", "latents/val"), clock, prints)
    train = LatentStore(directory.input("encode", "latents/train"), clock, prints)
    chosen = EvaluationSet(val, clock, character.window, character.units, len(val.clips), options.seed)

    def show(number: int) -> Subject:
        return held_out(chosen, number, clock, video, audio, cfg.data.size)

    clips = [show(i) for i in range(min(options.streams, len(chosen)))]
    known = [c.record.text for c in train.clips]
    recogniser = (bigram_of(in_rows([c.record.text for c in train.clips if c.record.recorded]),
                            in_rows([c.record.text for c in chosen.clips])) if options.words else None)
    gauge = Gauge(clock, words_per_chunk(train, clock), options.windows, options.max_lag, recogniser,
                  choose_mouth(options, train, clips, video))
    return Material(chosen, show, clips, known), gauge


def _texts(known: list[str], held: list[str], words: float, seed: int) -> list[str]:
    """Sentences that are not among the training texts: new ones of the grammar, twice the ``words`` that a stream
    lasts, or the held-out clips' own."""
    if grid(known):
        return new_sentences(ceil(words / 6) * 2 + 2, known, seed)
    own = [text for text in held if normalise_words(text)]
    if not own:
        raise InputError("long streams need held-out clips with text")
    return [own[(seed + i) % len(own)] for i in range(len(own))]


def _variants(main: Speaker, prompt: RolloutBatch, gauge: Gauge) -> list[Variant]:
    """The model, without its sink, and without its pointer: at the constant rate, in the units of this transcript."""
    character = main.character
    rate = units_at_rate(prompt.words[0], character.units, gauge.rate)
    open_loop = replace(character, orchestrator=OpenLoopOrchestrator(character.orchestrator, rate))
    return [Variant(main.column, character), Variant("no_sink", character, use_sink=False),
            Variant("open_loop", open_loop)]


def _stream(variant: Variant, prompt: RolloutBatch, plan: SamplePlan, seconds: float, seed: int) -> LongTake:
    """One stream.

    Not ``streams.speak``: this one turns the sink off, asks the memory for its size after each chunk (early: after
    ``SETTLED`` chunks), counts samples before they are cut to the picture, and keeps no latents of its many chunks.
    """
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
    return LongTake(take, session.record, (early, state_bytes(memory.state_dict())), sink.written)


class _CountingSink(MemorySink):
    """Also counts the samples that came, before they are cut to the frames' length."""

    written = 0

    def write(self, frames: NDArray[np.uint8], samples: NDArray[np.floating]) -> None:
        self.written += len(samples)
        super().write(frames, samples)


def _join(found: Findings, material: Material, options: EvaluateConfig, gauge: Gauge, bar: Progress
          ) -> list[str]:
    """The words of held-out clips joined to streams: as recorded, and through the codecs; returns notes on them."""
    if gauge.recogniser is None:
        return []
    clips = material.to_join(options.streams * options.stream_s)
    task = bar.add_task("held-out clips as streams", total=2 * options.streams)
    for column in ("real", "codec"):
        for sound, words, pointers in joined_streams(clips, column, options.streams, options.stream_s, gauge):
            found.spoken.setdefault(column, []).append(spoken_stream(sound, words, pointers, gauge.recogniser, gauge))
            bar.advance(task)
    if sum(clip.truth.seconds for clip in clips if clip.truth is not None) >= options.streams * options.stream_s:
        return []
    return [f"The {len(clips)} held-out clips are too few for {options.streams} different streams: in the columns "
            f"{TITLES['real']} and {TITLES['codec']} they come again, and their intervals are too narrow."]


def _measure(found: Findings, column: str, take: LongTake, transcript: list[str],
             reference: NDArray[np.uint8] | None, gauge: Gauge) -> None:
    """Add a generated stream to what was found."""
    found.figures.setdefault(column, []).append(figures_of(take, transcript, reference, gauge))
    if gauge.recogniser is not None:
        shown = take.rendering
        found.spoken.setdefault(column, []).append(
            spoken_stream(shown.sound, transcript, shown.pointers, gauge.recogniser, gauge))


def _show(report: Report, directory: RunDirectory, column: str, take: Rendering, subject: Subject,
          clock: ChunkClock) -> None:
    folder = directory.stage("evaluate") / "videos"
    if not report.clips:
        report.clips.append(ClipRow("the first stream", f"{subject.key}'s character"))
    row = report.clips[0]
    write_clip(folder / f"long-{column}.mp4", take.frames, take.sound, clock.fps, clock.sample_rate)
    still_image(take.frames).save(folder / f"long-{column}-still.png")
    row.videos[column], row.posters[column] = f"videos/long-{column}.mp4", f"videos/long-{column}-still.png"


def _hear_noise(found: Findings, shown: Rendering, transcript: list[str], seed: int, gauge: Gauge) -> None:
    """Word errors of white noise that is as loud as the stream, in its place."""
    if gauge.recogniser is None or not len(shown.sound):
        return
    noise = np.random.default_rng(seed).standard_normal(len(shown.sound)) * np.sqrt(np.mean(shown.sound**2))
    heard = heard_words(gauge.recogniser, noise, gauge.clock)
    found.noise.append(100 * score_against(transcript, heard, shown.pointers, gauge).wer)
