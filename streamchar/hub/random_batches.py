"""Batches of random numbers with the shapes of a model: for benchmarks and tests, which need no data then."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from streamchar.hub.model_spec import ModelSpec
from streamchar.types import ChunkBatch, Conditions, Latents, RolloutBatch, Text


class CountedUnits:
    """One unit per word, its id a checksum: no tokenizer's files are needed."""

    def __init__(self, width: int, vocabulary: int) -> None:
        self.width, self.vocabulary = width, vocabulary

    @classmethod
    def of(cls, spec: ModelSpec) -> CountedUnits:
        """Units that the model's table has."""
        width = spec.orchestrator.word_width if spec.orchestrator.tokenizer == "spelled" else 1
        return cls(width, 36 if width > 1 else spec.orchestrator.vocabulary - 1)

    def encode(self, word: str) -> list[list[int]]:
        """(1, width) ids in 1 .. vocabulary."""
        return [[zlib.crc32(f"{word}{i}".encode()) % self.vocabulary + 1 for i in range(self.width)]]


def random_text(spec: ModelSpec, count: int, size: int, filled: int, align: str, g: torch.Generator) -> Text:
    """(count, size) text units of which ``filled`` are real, at the ``left`` or the ``right`` end."""
    spelled = spec.orchestrator.tokenizer == "spelled"
    width, largest = (spec.orchestrator.word_width, 37) if spelled else (1, spec.orchestrator.vocabulary)
    ids = torch.randint(1, largest + 1, (count, size, width), generator=g)
    place = torch.arange(size) if align == "left" else torch.arange(size).flip(0)
    mask = (place < filled).expand(count, -1).clone()
    return Text(ids * mask[..., None], mask)


def random_chunks(spec: ModelSpec, count: int, grid: int, seed: int = 0, first: int = 0) -> ChunkBatch:
    """``count`` training items in the middle of a stream, all context groups filled, half of the text slots too.

    Args:
        spec: sizes, clock and window.
        count: items B.
        grid: side of the video latents' square grid.
        seed, first: of the numbers; ``index`` counts from ``first``.
    """
    g = torch.Generator().manual_seed(seed * 1_000_003 + first)
    d, clock, window = spec.denoiser, spec.clock, spec.window

    def video(frames: int) -> Tensor:
        return torch.randn(count, d.video_channels, frames, grid, grid, generator=g)

    def audio(latents: int) -> Tensor:
        return torch.randn(count, latents, d.audio_channels, generator=g)

    yes = torch.ones(count, dtype=torch.bool)
    history = window.anchor_latents(clock) + window.recent_latents(clock)
    conditions = Conditions(
        ref=video(1), has_ref=yes, motion=video(window.motion_latents), has_motion=yes,
        sink=video(window.sink_latents), has_sink=yes, past_audio=audio(window.past_latents(clock)), has_past=yes,
        spoken=random_text(spec, count, window.max_spoken, window.max_spoken // 2, "right", g),
        todo=random_text(spec, count, window.max_todo, max(window.max_todo // 2, 2), "left", g), has_text=yes,
        cursor=torch.rand(count, generator=g), history=audio(history),
        history_mask=torch.ones(count, history, dtype=torch.bool),
        history_time=torch.tensor([window.history_time(clock, 1)]).expand(count, -1),
        audio_time=torch.tensor([window.audio_time(clock, 1)]).expand(count, -1))
    owned = (torch.arange(clock.audio_latents) < clock.audio_owned(1)).float().expand(count, -1)
    pointer = conditions.cursor + torch.rand(count, generator=g)
    return ChunkBatch(conditions, Latents(video(clock.video_latents), audio(clock.audio_latents)), owned, yes, pointer,
                      torch.arange(first, first + count), [f"random-{first + i}" for i in range(count)])


def random_streams(spec: ModelSpec, grid: tuple[int, int], streams: int, words: int) -> RolloutBatch:
    """Streams to begin, of ``words`` words each, from random pictures and voices."""
    g = torch.Generator().manual_seed(0)
    clock, window, d = spec.clock, spec.window, spec.denoiser
    recent, anchor = window.recent_latents(clock), window.anchor_latents(clock)

    def video(frames: int) -> Tensor:
        return torch.randn(streams, d.video_channels, frames, *grid, generator=g)

    return RolloutBatch(
        ref=video(1), anchor=torch.randn(streams, anchor, d.audio_channels, generator=g),
        anchor_mask=torch.ones(streams, anchor, dtype=torch.bool),
        words=[[f"word{i}" for i in range(words)] for _ in range(streams)],
        has_start=torch.zeros(streams, dtype=torch.bool), start_motion=video(window.motion_latents),
        start_sink=video(window.sink_latents), start_audio=torch.zeros(streams, recent, d.audio_channels),
        start_audio_mask=torch.zeros(streams, recent, dtype=torch.bool), start_spoken=[[] for _ in range(streams)],
        start_cursor=torch.zeros(streams), index=torch.arange(streams), keys=[f"s{i}" for i in range(streams)])
