"""The chunk loop, which exists once: memory and transcript -> prefix -> context -> steps -> pointer -> next memory.

Stage II training, validation, evaluation, the throughput probe and the command line all call :func:`generate_chunk`;
they differ in the sample plan, the exit step, and what they do with the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamchar.orchestrator.model import Prefix
from streamchar.rollout.character import Character
from streamchar.rollout.denoise import denoise_chunk
from streamchar.rollout.joined import JoinedMemory
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan
from streamchar.types import Conditions, Latents


@dataclass
class ChunkResult:
    """One generated chunk.

    latents: the final sample, detached; the first ``owned[b]`` audio latents of stream b belong to this chunk.
    chunks: its number in each stream.
    pointer_before, pointer_after: (B,) in words. conditions, prefix: exactly what the student saw, for teacher and
    critic; untold: the prefix without text, where its plan needed one. exit: the clean estimate at the exit step with
    gradient, if one was asked for.
    """

    latents: Latents
    owned: list[int]
    pointer_before: Tensor
    pointer_after: Tensor
    chunks: list[int]
    conditions: Conditions
    prefix: Prefix
    untold: Prefix | None = None
    exit: Latents | None = None

    @property
    def chunk(self) -> int:
        """Its number, where that is the same in all streams, as in one :class:`StreamMemory`."""
        return _one(self.chunks, "chunk number")

    @property
    def audio_owned(self) -> int:
        """Audio latents that belong to it, where that is the same in all streams."""
        return _one(self.owned, "number of owned latents")


def generate_chunk(character: Character, memory: StreamMemory | JoinedMemory, plan: SamplePlan,
                   exit_step: int | None = None, exit_grad: bool = True, exit_feeds_memory: bool = False,
                   iteration: int = 0, role: str = "stream") -> ChunkResult:
    """Generate the next chunk of every stream in ``memory`` and advance it.

    The chunk's noise is a function of (memory.seed, iteration, role, stream index, chunk number, step). With
    ``exit_step`` the result also holds the clean estimate at that step (with gradient if ``exit_grad``); what enters
    memory is always detached: the fully denoised sample, or the exit's estimate with ``exit_feeds_memory``.
    """
    key, chunks, owned, before = memory.noise(role, iteration), memory.chunks, memory.owned(), memory.pointer_words()
    with torch.no_grad():
        conditions, base = memory.conditions()
        conditions = plan.limited(conditions)
        prefix = character.orchestrator.prefix(conditions)
        untold = character.orchestrator.untold_prefix(conditions) if plan.needs_untold else None
    out = denoise_chunk(character.denoiser, character.orchestrator, conditions, prefix, plan, key, exit_step, exit_grad,
                        stop_at_exit=exit_feeds_memory, untold=untold)
    with torch.no_grad():
        predicted = base + character.orchestrator.point(prefix, out.final.audio)
    memory.advance(out.final, predicted, character.orchestrator.config.pointer_rate)
    return ChunkResult(out.final, owned, before, memory.pointer_words(), chunks, conditions, prefix, untold,
                       out.exit)


def _one(values: list[int], name: str) -> int:
    if len(set(values)) != 1:
        raise ValueError(f"the streams of this chunk have no common {name}: {values}; ask each stream for its own")
    return values[0]
