"""``stage=evaluate``: held-out clips streamed from picture, voice and text, measured beside what needs no model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from datamodules.evaluation_set import EvaluationSet
from datamodules.latent_shards import LatentStore
from pipelines.build import load_character
from pipelines.config.schema import RunConfig
from pipelines.evaluating.material import HeldOut, Rendering, held_out
from pipelines.evaluating.mouths import choose_mouth
from pipelines.evaluating.scores import (
    drift_rows,
    frechet_rows,
    identity_rows,
    pointer_rows,
    sync_rows,
    words_per_chunk,
)
from pipelines.evaluating.streams import long_prompt, real_chunks, speak
from pipelines.evaluating.words import aligned_pointer_rows, word_rows
from pipelines.gate.gate import run_gate
from pipelines.run_directory import RunDirectory
from pipelines.stages.stream import plan_of, set_threads
from streamchar.evaluation.pointer_track import PointerTrack, pointer_on_sound
from streamchar.evaluation.report import ClipRow, Report
from streamchar.evaluation.strip import still_image, strip_image
from streamchar.rollout.character import Character
from streamchar.rollout.plan import SamplePlan, teacher_plan
from streamchar.streaming.muxer import write_clip
from streamchar.streaming.timing import TimingRecord
from streamchar.types import Latents

log = logging.getLogger(__name__)


@dataclass
class Speaker:
    """A model under evaluation: its column in the report and how it samples; ``chunks``: latents that it made."""

    column: str
    character: Character
    plan: SamplePlan
    chunks: list[Latents] = field(default_factory=list)


@torch.no_grad()
def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Write ``evaluate/report.json``, ``table.txt``, ``index.html``, videos and strips; print the table.

    Raises:
        InputError: where the model, the latents or a file that was asked for is missing.
        StreamCharError: where ``evaluate.gate`` is asked for and not passed.
    """
    console = Console(highlight=False)
    set_threads(cfg)
    speakers = _speakers(cfg, directory)
    main = speakers[0]
    clock = main.character.clock
    video, audio = main.character.codecs()
    prints: dict[str, str | None] = {"video": video.fingerprint, "audio": audio.fingerprint}
    val = LatentStore(directory.input("encode", "latents/val"), clock, prints)
    train = LatentStore(directory.input("encode", "latents/train"), clock, prints)
    clips_of = EvaluationSet(val, clock, main.character.window, main.character.units, cfg.evaluate.clips,
                             cfg.evaluate.seed)
    report = Report(f"Evaluation of run {directory.name}", _facts(cfg, main, len(clips_of)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        clips = [held_out(clips_of, i, clock, video, audio, cfg.data.size)
                 for i in bar.track(range(len(clips_of)), description="held-out clips")]
        _generate(cfg, speakers, clips, bar)
        long = _long_stream(cfg, main, clips, train, bar)
        forced, free = _pointer_tracks(cfg, main.character, val, bar)
        _write_videos(directory, clips, report, clock.fps, audio.sample_rate, bar)
        if cfg.evaluate.words:
            word_rows(report, clips, train, clock, main.column, cfg.evaluate.seed, bar)
    rate = words_per_chunk(train, clock)
    pointer_rows(report, forced, free, rate, main.column)
    if cfg.evaluate.words:
        aligned_pointer_rows(report, clips, train, clock, main.column)
    mouth = choose_mouth(cfg.evaluate, train, clips, video)
    if mouth is not None:
        sync_rows(report, clips, mouth, clock, cfg.evaluate.max_lag, main.column)
    identity_rows(report, clips, train, video)
    if long is not None:
        _add_long(report, directory, long, clips, main, cfg.evaluate.drift_window_s)
    frechet_rows(report, {s.column: s.chunks for s in speakers},
                 [c for clip in clips for c in real_chunks(clip, main.character)])
    report.notes.append(f"{len(clips)} clips: differences within a few points of word error or a few hundredths of "
                        "correlation are noise.")
    folder = directory.stage("evaluate")
    report.save(folder)
    wide = console if console.is_terminal and console.width >= 120 else Console(width=max(console.width, 150))
    wide.print(report.table())
    console.print(f"page: {folder / 'index.html'}", soft_wrap=True)
    if cfg.evaluate.gate:
        del clips_of, val, train
        run_gate(cfg, directory, console)


def _speakers(cfg: RunConfig, directory: RunDirectory) -> list[Speaker]:
    """The model asked for, and the undistilled teacher beside it if wanted."""
    character = load_character(directory, cfg, cfg.evaluate.from_stage)
    out = [Speaker("student" if character.few_step else "teacher", character, plan_of(character, cfg.evaluate.steps))]
    if cfg.evaluate.teacher and character.few_step:
        teacher = load_character(directory, cfg, "teacher")
        out.append(Speaker("teacher", teacher, teacher_plan(teacher.diffusion, cfg.evaluate.teacher_steps)))
    return out


def _facts(cfg: RunConfig, main: Speaker, clips: int) -> dict[str, object]:
    return {"model": main.column, "from stage": cfg.evaluate.from_stage, "steps": main.plan.steps, "clips": clips,
            "seed": cfg.evaluate.seed, "frames per chunk": main.character.clock.chunk_frames,
            "fps": main.character.clock.fps}


def _generate(cfg: RunConfig, speakers: list[Speaker], clips: list[HeldOut], bar: Progress) -> None:
    """Every speaker streams every clip's text."""
    task = bar.add_task("streaming", total=len(speakers) * len(clips))
    for speaker in speakers:
        for clip in clips:
            bar.update(task, description=f"streaming, {speaker.column}")
            clip.renderings[speaker.column], _, latents = speak(
                speaker.character, clip.prompt, speaker.plan, cfg.evaluate.seconds, cfg.evaluate.seed)
            speaker.chunks += latents
            bar.advance(task)


def _long_stream(cfg: RunConfig, main: Speaker, clips: list[HeldOut], train: LatentStore, bar: Progress
                 ) -> tuple[Rendering, TimingRecord] | None:
    """One stream of ``drift_s`` seconds, alone on the machine: drift and speed."""
    if not cfg.evaluate.drift_s:
        return None
    clock = main.character.clock
    pace = words_per_chunk(train, clock) / float(clock.chunk_seconds)
    task = bar.add_task("long stream", total=int(cfg.evaluate.drift_s / float(clock.chunk_seconds)) + 1)
    rendering, record, latents = speak(main.character, long_prompt(clips, cfg.evaluate.drift_s, pace), main.plan,
                                       cfg.evaluate.drift_s, cfg.evaluate.seed, lambda: bar.advance(task))
    main.chunks += latents
    return rendering, record


def _pointer_tracks(cfg: RunConfig, character: Character, val: LatentStore, bar: Progress
                    ) -> tuple[PointerTrack, PointerTrack]:
    """The pointer over real held-out sound until ``pointer_items`` chunks are seen: (forced, free)."""
    wide = EvaluationSet(val, character.clock, character.window, character.units, len(val.clips), cfg.evaluate.seed)
    tracks = PointerTrack(), PointerTrack()
    task = bar.add_task("pointer on real sound", total=cfg.evaluate.pointer_items)
    for i in range(len(wide)):
        truth, batch = wide.truth(i), wide.batch(i, 1).to(next(character.orchestrator.parameters()).device)
        for track, forced in zip(tracks, (True, False), strict=True):
            track.extend(pointer_on_sound(character, batch, truth.video, truth.audio, truth.words, forced))
        bar.update(task, completed=len(tracks[0].true))
        if len(tracks[0].true) >= cfg.evaluate.pointer_items:
            break
    return tracks


def _write_videos(directory: RunDirectory, clips: list[HeldOut], report: Report, fps: float, rate: int,
                  bar: Progress) -> None:
    """Beside the page: per clip and column an mp4, a still of its middle, and a strip."""
    folder = directory.stage("evaluate") / "videos"
    for clip in bar.track(clips, description="videos"):
        row = ClipRow(clip.truth.key, clip.truth.text)
        for column, r in clip.renderings.items():
            row.videos[column] = f"videos/{clip.truth.key}-{column}.mp4"
            row.posters[column] = f"videos/{clip.truth.key}-{column}-still.png"
            write_clip(folder / f"{clip.truth.key}-{column}.mp4", r.frames, r.sound, fps, rate)
            still_image(r.frames).save(folder / f"{clip.truth.key}-{column}-still.png")
            strip_image(r.frames, r.sound, fps).save(folder / f"{clip.truth.key}-{column}.png")
        report.clips.append(row)


def _add_long(report: Report, directory: RunDirectory, long: tuple[Rendering, TimingRecord], clips: list[HeldOut],
              main: Speaker, window_s: float) -> None:
    """Drift and speed of the long stream; a recorded clip's drift beside it."""
    rendering, record = long
    clock = main.character.clock
    longest = max((c.renderings.get("real") or c.renderings["codec"] for c in clips), key=lambda r: len(r.frames))
    drift_rows(report, {"real": longest, main.column: rendering}, clock, window_s)
    speed = record.summary()
    report.add("speed", "real-time factor", {main.column: speed["real_time_factor"]},
               note=f"first chunk {speed['first_chunk_s']:.2f} s, p95 {speed['chunk_p95_s']:.2f} s of "
                    f"{speed['chunk_budget_s']:.2f} s, {speed['deadline_misses']:.0f} deadlines missed; 1 keeps up")
    record.save(directory.stage("evaluate") / "timing.json")
    folder = directory.stage("evaluate") / "videos"
    write_clip(folder / f"long-{main.column}.mp4", rendering.frames, rendering.sound, clock.fps, clock.sample_rate)
    row = ClipRow("long stream", f"{len(rendering.frames) / clock.fps:.1f} s, all clips' texts one after another")
    row.videos[main.column] = f"videos/long-{main.column}.mp4"
    report.clips.append(row)
