"""A stream from its first chunk to one quiet chunk past the end of its text."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from streamchar.rollout.character import Character
from streamchar.rollout.chunk_loop import ChunkResult, generate_chunk
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan, student_plan, teacher_plan
from streamchar.types import RolloutBatch


def default_plan(character: Character, steps: int | None = None) -> SamplePlan:
    """The student's few-step plan, or the teacher's Euler plan with ``steps``."""
    return student_plan(character.diffusion) if character.few_step else teacher_plan(character.diffusion, steps)


@torch.no_grad()
def stream_chunks(character: Character, batch: RolloutBatch | StreamMemory, plan: SamplePlan | None = None,
                  max_chunks: int | None = None, seed: int = 0, exactly: bool = False) -> Iterator[ChunkResult]:
    """Chunks of a batch of streams, one after another; ends when every stream has finished, or at ``max_chunks``.

    ``exactly``: always ``max_chunks``, for ranks that share a model out and must run it equally often.

    A saved :class:`StreamMemory` in place of the batch goes on from where it was.
    """
    memory = batch if isinstance(batch, StreamMemory) else character.start(batch, seed)
    plan = plan or default_plan(character)
    produced = 0
    while max_chunks is None or produced < max_chunks:
        yield generate_chunk(character, memory, plan)
        produced += 1
        if not exactly and bool(memory.finished.all()):
            return
