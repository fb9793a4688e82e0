"""Generating the streams that are evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from math import ceil
from typing import Any

import torch
from torch import Tensor

from pipelines.evaluating.material import Rendering, Subject
from streamchar.clock import ChunkClock
from streamchar.errors import InputError
from streamchar.rollout.character import Character
from streamchar.rollout.plan import SamplePlan
from streamchar.rollout.stream import stream_chunks
from streamchar.streaming.decoding import device_of
from streamchar.streaming.session import StreamSession
from streamchar.streaming.sinks import MemorySink
from streamchar.streaming.timing import TimingRecord
from streamchar.transcript import normalise_words
from streamchar.types import Latents, RolloutBatch


def speak(character: Character, batch: RolloutBatch, plan: SamplePlan, seconds: float, seed: int,
          step: Callable[[], None] = lambda: None) -> tuple[list[Rendering], TimingRecord, list[list[Latents]]]:
    """Streams that run together, kept in memory; ``step`` is called after each chunk.

    Returns a rendering per stream, the timing, and per stream its chunks as latents of batch size 1.
    """
    clock, (video, audio) = character.clock, character.codecs()
    sinks = [MemorySink(clock.fps, audio.sample_rate) for _ in range(len(batch))]
    session = StreamSession(clock, video, audio, sinks, [len(words) for words in batch.words])
    batch = batch.to(device_of(character.denoiser))
    limit = max(ceil(seconds / float(clock.chunk_seconds) - 1e-6), 1)
    latents: list[list[Latents]] = [[] for _ in sinks]
    try:
        for chunk in session.iterate(stream_chunks(character, batch, plan, limit, seed)):
            for b, mine in enumerate(latents):
                mine.append(Latents(chunk.latents.video[b:b + 1].float().cpu(),
                                    chunk.latents.audio[b:b + 1].float().cpu()))
            step()
    finally:
        session.finish()
    takes = [Rendering(s.frames, s.sound, list(p)) for s, p in zip(sinks, session.pointers, strict=True)]
    # a stream that ended is generated on with the others; what nobody hears is nobody's chunk
    return takes, session.record, [mine[:len(take.pointers)] for mine, take in zip(latents, takes, strict=True)]


def together(subjects: list[Subject]) -> RolloutBatch:
    """The prompts of several subjects as one batch, each saying its own text."""
    prompts = [s.prompt for s in subjects]
    return join_prompts([p for p in prompts if p is not None])


def join_prompts(prompts: list[RolloutBatch]) -> RolloutBatch:
    """Batches of streams -> one batch, numbered anew, so that streams with equal prompts get noise of their own."""
    joined: dict[str, Any] = {}
    for field in fields(RolloutBatch):
        values = [getattr(p, field.name) for p in prompts]
        first = values[0]
        if isinstance(first, Tensor):
            joined[field.name] = torch.cat(values)
        elif first is None:
            joined[field.name] = None
        else:
            joined[field.name] = [entry for value in values for entry in value]
    joined["index"] = torch.arange(len(joined["keys"]))
    return RolloutBatch(**joined)


def long_prompt(subject: Subject, texts: list[str], seconds: float, words_per_second: float) -> RolloutBatch:
    """The subject's character with texts one after another, repeated until they outlast ``seconds``."""
    if subject.prompt is None:
        raise InputError(f"{subject.key} has no prompt to stream from")
    words = [w for text in texts for w in normalise_words(text)]
    need = int(seconds * max(words_per_second, 1.0) * 2) + 1
    words = (words * (need // max(len(words), 1) + 1))[:need] if words else []
    return replace(subject.prompt, words=[words])


def real_chunks(subject: Subject, clock: ChunkClock) -> list[Latents]:
    """The clip's own whole chunks as latents of batch size 1."""
    out: list[Latents] = []
    if subject.truth is None:
        return out
    for k in range(len(subject.truth.video)):
        piece = subject.truth.audio[clock.audio_start(k):clock.audio_start(k) + clock.audio_latents]
        if len(piece) == clock.audio_latents:
            out.append(Latents(subject.truth.video[k][None], piece[None]))
    return out


def stack(chunks: list[Latents]) -> Latents:
    """Chunks of batch size 1 -> one batch."""
    return Latents(torch.cat([c.video for c in chunks]), torch.cat([c.audio for c in chunks]))
