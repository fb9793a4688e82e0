"""Generating the streams that are evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

import torch

from pipelines.evaluating.material import HeldOut, Rendering
from streamchar.rollout.character import Character
from streamchar.rollout.plan import SamplePlan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.session import MemorySink, StreamSession, device_of
from streamchar.streaming.timing import TimingRecord
from streamchar.types import Latents, RolloutBatch


def speak(character: Character, batch: RolloutBatch, plan: SamplePlan, seconds: float, seed: int,
          step: Callable[[], None] = lambda: None) -> tuple[Rendering, TimingRecord, list[Latents]]:
    """One stream, kept in memory; ``step`` is called after each chunk. Also its timing and its chunks' latents."""
    video, audio = character.codecs()
    sink = MemorySink(character.clock.fps, audio.sample_rate)
    session = StreamSession(character.clock, video, audio, [sink], [len(batch.words[0])])
    batch = batch.to(device_of(character.denoiser))
    limit = max(ceil(seconds / float(character.clock.chunk_seconds)), 1)
    latents = []
    try:
        for chunk in session.iterate(stream_chunks(character, batch, plan, limit, seed)):
            latents.append(Latents(chunk.latents.video.float().cpu(), chunk.latents.audio.float().cpu()))
            step()
    finally:
        session.finish()
    return Rendering(sink.frames, sink.sound, list(session.pointers[0])), session.record, latents


def long_prompt(clips: list[HeldOut], seconds: float, words_per_second: float) -> RolloutBatch:
    """The first clip's character with all clips' texts one after another, repeated until they outlast ``seconds``."""
    texts = [w for clip in clips for w in clip.prompt.words[0]]
    need = int(seconds * max(words_per_second, 1.0) * 2) + 1
    words = (texts * (need // max(len(texts), 1) + 1))[:need] if texts else []
    return replace(clips[0].prompt, words=[words])


def real_chunks(clip: HeldOut, character: Character) -> list[Latents]:
    """The clip's own whole chunks as latents of batch size 1."""
    clock, out = character.clock, []
    for k in range(len(clip.truth.video)):
        piece = clip.truth.audio[clock.audio_start(k):clock.audio_start(k) + clock.audio_latents]
        if len(piece) == clock.audio_latents:
            out.append(Latents(clip.truth.video[k][None], piece[None]))
    return out


def stack(chunks: list[Latents]) -> Latents:
    """Chunks of batch size 1 -> one batch."""
    return Latents(torch.cat([c.video for c in chunks]), torch.cat([c.audio for c in chunks]))
