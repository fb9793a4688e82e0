"""``stage=stream``: a picture, a voice and a text become an mp4 that grows while it is generated."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pipelines.build import load_character
from pipelines.config.schema import RunConfig
from pipelines.live_lines import follow_lines
from pipelines.own_prompt import own_prompt
from pipelines.run_directory import RunDirectory
from pipelines.shipped import carried_prompt, model_folder
from streamchar.codecs.protocol import VideoCodec
from streamchar.errors import InputError
from streamchar.hub import from_pretrained
from streamchar.rollout.character import Character
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan, student_plan, teacher_plan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.conductor import Conductor
from streamchar.streaming.config import StreamConfig
from streamchar.streaming.decoding import device_of
from streamchar.streaming.degradation import Degradation, Level, levels_of
from streamchar.streaming.engine import accelerate, warm_up
from streamchar.streaming.inference_plan import InferencePlan, named_plan
from streamchar.streaming.live import LiveText
from streamchar.streaming.muxer import ClipWriter
from streamchar.streaming.playback import PlaybackClock
from streamchar.streaming.prompt import build_prompt, read_picture, read_voice
from streamchar.streaming.session import StreamSession
from streamchar.types import RolloutBatch

log = logging.getLogger(__name__)

DEFAULT_TEXT = ("place red at c nine again bin blue by f two now set white with p four soon "
                "lay green in j one please place blue at k seven now bin white at u six again")
NOTHING = "none"
Prompt = tuple[Path | None, Path | None]


@torch.no_grad()
def run(cfg: RunConfig, directory: RunDirectory) -> None:
    """Stream one clip; writes the mp4, ``timing.json``, and prints the timing table.

    Raises:
        InputError: bad picture, voice or target file, or a model that is not there.
        KeyboardInterrupt: passed on after the file was closed; what was generated until then plays.
    """
    console = Console(highlight=False)
    set_threads(cfg)
    out = Path(cfg.stream.out) if cfg.stream.out else directory.stage("stream") / "clip.mp4"
    check_files(cfg)
    character, own = _character(cfg, directory)
    character = replace(character, clock=replace(character.clock, first_frames=cfg.stream.first_frames))
    device = device_of(character.denoiser)
    engine = named_plan(cfg.stream.engine, device.type)
    character = accelerate(character.with_codecs_on(device), engine)
    video_codec, audio_codec = character.codecs()
    began = time.perf_counter()
    batch = prompt_of(cfg.stream, character, own)
    prompt_s = time.perf_counter() - began
    if batch.words[0]:
        console.print(f"saying {len(batch.words[0])} words: {' '.join(batch.words[0])}", soft_wrap=True)
    writer = ClipWriter(out, frame_size(batch, video_codec), character.clock.fps, audio_codec.sample_rate,
                        "ultrafast" if cfg.stream.live else "veryfast")
    conductor = conductor_of(cfg.stream, character) if cfg.stream.live else None
    session = StreamSession(character.clock, video_codec, audio_codec, [writer],
                            None if conductor else [len(batch.words[0])], cfg.stream.overlap, conductor)
    session.record.prompt_s = prompt_s
    memory = character.start(batch.to(device), cfg.stream.seed)
    plan = plan_of(character, cfg.stream.steps)
    if engine != InferencePlan():
        warm_up(character, memory, [v.plan for v in conductor.quality.levels] if conductor else [plan])
    try:
        _drive(cfg, character, memory, session, console)
    except KeyboardInterrupt:
        seconds = writer.frames / character.clock.fps
        console.print(f"[yellow]interrupted[/]: {out} was closed and plays, {seconds:.2f} s", soft_wrap=True)
        raise
    finally:
        session.record.save(directory.stage("stream") / "timing.json", {
            "device": str(device), "engine": cfg.stream.engine, "threads": torch.get_num_threads(),
            "few_step": character.few_step, "steps": plan.steps, "clip": str(out)})
        console.print(session.record.table())
    words = len(memory.transcripts[0].words)
    said = f"{session.pointers[0][-1]:.1f} of {words} words" if session.pointers[0] else "nothing"
    console.print(f"{out}: {writer.frames / character.clock.fps:.2f} s, pointer at {said}", soft_wrap=True)


def _character(cfg: RunConfig, directory: RunDirectory) -> tuple[Character, Prompt]:
    """The character that speaks, on the device that is there, and the prompt that it has of its own."""
    if cfg.stream.model:
        folder = model_folder(cfg.stream.model)
        character = from_pretrained(folder).to("cuda" if torch.cuda.is_available() else "cpu")
        log.info("model of %s (%s)", folder, "few-step" if character.few_step else "Euler")
        return character, carried_prompt(folder)
    character = load_character(directory, cfg, cfg.stream.from_stage, cfg.stream.role)
    if cfg.stream.reference and cfg.stream.voice:
        return character, (None, None)
    return character, own_prompt(directory, character.clock, *character.codecs(), directory.stage("stream") / "prompt")


def set_threads(cfg: RunConfig) -> None:
    """As many threads as training uses (``trainer.threads``)."""
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)


def conductor_of(asked: StreamConfig, character: Character) -> Conductor:
    """A conductor that follows the lines of standard input."""
    plan = plan_of(character, asked.steps)
    levels = levels_of(plan, character.window) if asked.degrade else [Level(plan, "all steps", 1.0)]
    text = LiveText(character.units)
    follow_lines(text, sys.stdin)
    return Conductor(Degradation(levels), PlaybackClock(character.clock), text, asked.lead_s)


def _drive(cfg: RunConfig, character: Character, memory: StreamMemory, session: StreamSession,
           console: Console) -> None:
    """Run the session under a progress bar whose length is the text; closes the sinks whatever happens."""
    seconds = cfg.stream.seconds or (None if cfg.stream.live else cfg.stream.limit_s)
    limit = max(int(np.ceil(seconds / float(character.clock.chunk_seconds))), 1) if seconds else None
    director = session.conductor or plan_of(character, cfg.stream.steps)
    chunks = stream_chunks(character, memory, director, limit)
    columns = (TextColumn("streaming"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=cfg.stream.live) as bar:
            task = bar.add_task("", total=max(len(memory.transcripts[0].words), 1))
            for chunk in session.iterate(chunks):
                done = (chunk.chunk + 1) * float(character.clock.chunk_seconds)
                bar.update(task, completed=session.pointers[0][-1],
                           description=f"chunk {chunk.chunk + 1}, {done:.1f} s, word {session.pointers[0][-1]:.1f}")
    finally:
        session.finish()
    words = len(memory.transcripts[0].words)
    if session.pointers[0][-1] < words:
        log.warning("stopped after %d chunks with %.1f of %d words said (stream.seconds=%s, stream.limit_s=%s)",
                    len(session.pointers[0]), session.pointers[0][-1], words, cfg.stream.seconds, cfg.stream.limit_s)


def plan_of(character: Character, steps: int | None) -> SamplePlan:
    """The plan the weights were trained for, or the same kind of plan with ``steps`` steps."""
    if not character.few_step:
        return teacher_plan(character.diffusion, steps)
    if steps is None:
        return student_plan(character.diffusion)
    return student_plan(replace(character.diffusion, few_steps=[1 - i / steps for i in range(steps)]))


def check_files(cfg: RunConfig) -> None:
    """Refuse missing files before a model is loaded."""
    for key, value in (("reference", cfg.stream.reference), ("voice", cfg.stream.voice)):
        if value and value != NOTHING and not Path(value).is_file():
            raise InputError(f"{key}={value}: the file does not exist; give an existing file, or leave {key}= out "
                             "for the model's own prompt")


def frame_size(batch: RolloutBatch, codec: VideoCodec) -> tuple[int, int]:
    """(height, width) of decoded frames."""
    return batch.ref.shape[-2] * codec.spatial_stride, batch.ref.shape[-1] * codec.spatial_stride


def prompt_of(asked: StreamConfig, character: Character, own: Prompt) -> RolloutBatch:
    """The stream's beginning from the files asked for, or from the model's own prompt."""
    video_codec, audio_codec = character.codecs()
    size = (character.size, character.size)
    face, sound = _chosen(asked.reference, own[0]), _chosen(asked.voice, own[1])
    text = asked.transcript if asked.transcript is not None else "" if asked.live else DEFAULT_TEXT
    return build_prompt(
        [text], [read_picture(face, size) if face else None],
        [read_voice(sound, audio_codec.sample_rate, character.window.anchor_s) if sound else None],
        video_codec=video_codec, audio_codec=audio_codec, clock=character.clock, window=character.window, size=size,
        units=character.units)


def _chosen(given: str | None, own: Path | None) -> Path | None:
    """The file given, None where ``none`` was asked for, else the model's own."""
    if given == NOTHING:
        return None
    return Path(given) if given else own
