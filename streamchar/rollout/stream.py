"""A stream from its first chunk to one quiet chunk past the end of its text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from streamchar.rollout.character import Character
from streamchar.rollout.chunk_loop import ChunkResult, generate_chunk
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan, student_plan, teacher_plan
from streamchar.types import RolloutBatch


def default_plan(character: Character, steps: int | None = None) -> SamplePlan:
    """The student's few-step plan, or the teacher's Euler plan with ``steps``."""
    return student_plan(character.diffusion) if character.few_step else teacher_plan(character.diffusion, steps)


class Director(Protocol):
    """Asked before every chunk of a stream: how it is sampled, and whether there is one."""

    def next_plan(self, memory: StreamMemory) -> SamplePlan | None:
        """The plan of the next chunk; None ends the streams. May change the text in ``memory``."""


@dataclass(frozen=True)
class OnePlan:
    """The same plan for every chunk; ``until_said``: until every stream has said its text and one quiet chunk."""

    plan: SamplePlan
    until_said: bool = True

    def next_plan(self, memory: StreamMemory) -> SamplePlan | None:
        """As :meth:`Director.next_plan`."""
        return None if self.until_said and bool(memory.finished.all()) else self.plan


@torch.no_grad()
def stream_chunks(character: Character, batch: RolloutBatch | StreamMemory, plan: SamplePlan | Director | None = None,
                  max_chunks: int | None = None, seed: int = 0, exactly: bool = False) -> Iterator[ChunkResult]:
    """Chunks of a batch of streams, one after another; ends when every stream has finished, or at ``max_chunks``.

    plan: of all chunks, or a :class:`Director` that is asked before each one and says when the streams end.
    ``exactly``: always ``max_chunks``, for ranks that share a model out and must run it equally often.

    A saved :class:`StreamMemory` in place of the batch goes on from where it was.
    """
    memory = batch if isinstance(batch, StreamMemory) else character.start(batch, seed)
    plan = plan or default_plan(character)
    director = OnePlan(plan, not exactly) if isinstance(plan, SamplePlan) else plan
    produced = 0
    while max_chunks is None or produced < max_chunks:
        now = director.next_plan(memory)
        if now is None:
            return
        yield generate_chunk(character, memory, now)
        produced += 1
