"""The chunk loop, which exists once: memory and transcript -> prefix -> context -> steps -> pointer -> next memory.

Stage II training, validation, evaluation, the throughput probe and the command line all call :func:`generate_chunk`;
they differ in the sample plan, the exit step, and what they do with the result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamchar.diffusion.noise import NoiseKey
from streamchar.orchestrator.model import Prefix
from streamchar.rollout.character import Character
from streamchar.rollout.denoise import denoise_chunk
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan
from streamchar.types import Conditions, Latents


@dataclass
class ChunkResult:
    """One generated chunk.

    latents: the final sample, detached; the first ``audio_owned`` audio latents belong to this chunk.
    pointer_before, pointer_after: (B,) in words. conditions, prefix: exactly what the student saw, for teacher and
    critic. exit: the clean estimate at the exit step with gradient, if one was asked for.
    """

    latents: Latents
    audio_owned: int
    pointer_before: Tensor
    pointer_after: Tensor
    chunk: int
    conditions: Conditions
    prefix: Prefix
    exit: Latents | None = None


def generate_chunk(character: Character, memory: StreamMemory, plan: SamplePlan, exit_step: int | None = None,
                   exit_grad: bool = True, exit_feeds_memory: bool = False, iteration: int = 0,
                   role: str = "stream") -> ChunkResult:
    """Generate the next chunk of every stream in ``memory`` and advance it.

    The chunk's noise is a function of (memory.seed, iteration, role, stream index, chunk number, step). With
    ``exit_step`` the result also holds the clean estimate at that step (with gradient if ``exit_grad``); what enters
    memory is always detached: the fully denoised sample, or the exit's estimate with ``exit_feeds_memory``.
    """
    k = memory.chunk
    key = NoiseKey.of(memory.seed, memory.index, role, iteration).at(chunk=k)
    before = memory.pointer_words()
    with torch.no_grad():
        conditions, base = memory.conditions()
        conditions = plan.limited(conditions)
        prefix = character.orchestrator.prefix(conditions)
    out = denoise_chunk(character.denoiser, character.orchestrator, conditions, prefix, plan, key, exit_step, exit_grad,
                        stop_at_exit=exit_feeds_memory)
    with torch.no_grad():
        predicted = base + character.orchestrator.point(prefix, out.final.audio)
    memory.advance(out.final, predicted, character.orchestrator.config.pointer_rate)
    return ChunkResult(out.final, character.clock.audio_owned(k), before, memory.pointer_words(), k,
                       conditions, prefix, out.exit)
