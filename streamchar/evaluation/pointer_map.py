"""What the pointer looks at while a stream is heard: its attention over words and frames, and where it comes to stand.

Shape suffixes: W words, F audio latents ("frames"), N units still to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamchar.clock import ChunkClock
from streamchar.orchestrator.model import Orchestrator
from streamchar.rollout.memory import StreamMemory
from streamchar.transcript import TextUnits, Transcript, Word, word_position_at
from streamchar.types import Latents, RolloutBatch
from streamchar.window import WindowConfig


@dataclass
class SpokenClip:
    """A held-out clip as a stream to begin: one prompt, its own sound (T, Ca) from its start, and when what is said.

    clock, window, units: of the run.
    """

    batch: RolloutBatch
    audio: Tensor
    words: list[Word]
    clock: ChunkClock
    window: WindowConfig
    units: TextUnits

    def start(self, device: torch.device | str) -> StreamMemory:
        """Fresh memory on a device."""
        return StreamMemory(self.batch.to(device), self.clock, self.window, self.units)

    def chunks(self, most: int) -> list[Latents]:
        """Up to ``most`` whole chunks of its sound, without pictures, which the pointer does not see."""
        clock, out = self.clock, []
        for k in range(most):
            piece = self.audio[clock.audio_start(k):clock.audio_start(k) + clock.carried(k)]
            if len(piece) < clock.carried(k):
                break
            shape = (1, self.batch.ref.shape[1], clock.latents(k), *self.batch.ref.shape[3:])
            out.append(Latents(torch.zeros(shape), piece[None]))
        return out


@dataclass
class PointerMap:
    """One stream, chunk after chunk.

    stream: its name. begin: seconds of the first frame; rate: frames per second. path: (seconds, words) where the
    pointer stands at chunk borders. true: the same of what is really said, where that is known.
    columns: per frame the words that the pointer was offered, from the first one's number on, with their shares of its
    attention (what is missing to 1 rests where the chunk began), and how much the frame decides of its chunk's end.
    """

    stream: str
    begin: float
    rate: float
    path: list[tuple[float, float]]
    true: list[tuple[float, float]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    columns: list[tuple[int, NDArray[np.float32], float]] = field(default_factory=list)

    def add(self, transcript: Transcript, base: int, alpha: Tensor, weight: Tensor, end: tuple[float, float]) -> None:
        """A chunk: ``alpha`` (F, 1 + N) over the units from number ``base`` on and ``weight`` (F,), both of the frames
        that belong to it, and where the pointer stands at its end."""
        self.words = list(transcript.words)
        offered = transcript.word_of_unit[base:base + alpha.shape[1] - 1]
        first = offered[0] if offered else len(self.words)
        shares = np.zeros((len(alpha), offered[-1] + 1 - first if offered else 0), np.float32)
        for unit, word in enumerate(offered):
            shares[:, word - first] += alpha[:, 1 + unit].numpy()
        self.columns += [(first, row, float(w)) for row, w in zip(shares, weight, strict=True)]
        self.path.append(end)

    def shares(self) -> NDArray[np.float32]:
        """(W, F) share of each frame's attention on each word; nan where a word was not offered."""
        out = np.full((len(self.words), len(self.columns)), np.nan, np.float32)
        for i, (first, row, _) in enumerate(self.columns):
            out[first:first + len(row), i] = row
        return out

    def rest(self) -> NDArray[np.float32]:
        """(F,) share of each frame's attention that rests where its chunk began."""
        return np.array([1 - row.sum() for _, row, _ in self.columns], np.float32)

    def weights(self) -> NDArray[np.float32]:
        """(F,) how much each frame decides of its chunk's end."""
        return np.array([weight for _, _, weight in self.columns], np.float32)


@torch.no_grad()
def pointer_maps(orchestrator: Orchestrator, memory: StreamMemory, chunks: Iterable[Latents], names: list[str],
                 words: list[Word] | None = None) -> list[PointerMap]:
    """Let the pointer run over finished chunks, from its own position, as the chunk loop does; a map per stream.

    Args:
        memory: before the first chunk; it is advanced.
        chunks: of all streams of ``memory`` together.
        words: what is really said, in seconds from the streams' start; None where nobody knows.
    """
    clock, start = memory.clock, memory.chunk
    first, rate = clock.audio_start(start) / clock.audio_rate, clock.audio_rate
    maps = [PointerMap(name, first, rate, [(float(clock.chunk_start(start)), float(at))])
            for name, at in zip(names, memory.pointer_words(), strict=True)]
    for chunk in chunks:
        conditions, base = memory.conditions()
        owned, audio = memory.owned(), chunk.audio.to(memory.ref.device)
        reading = orchestrator.reading(orchestrator.prefix(conditions), audio)
        memory.advance(Latents(chunk.video.to(memory.ref.device), audio), base + reading.end,
                       orchestrator.config.pointer_rate)
        end, alpha, weight = float(clock.chunk_start(memory.chunk)), reading.alpha.float().cpu(), reading.weight.cpu()
        for b, (found, at) in enumerate(zip(maps, memory.pointer_words(), strict=True)):
            offered = 1 + int(conditions.todo.mask[b].sum())  # the rest is padding
            found.add(memory.transcripts[b], int(base[b]), alpha[b, :owned[b], :offered], weight[b, :owned[b]],
                      (end, float(at)))
    if words is not None:
        for found in maps:
            times = np.linspace(found.path[0][0], found.path[-1][0], max(len(found.columns), 1) + 1).tolist()
            found.true = [(t, word_position_at(words, t)) for t in times]
    return maps
