"""The fast paths of a character that speaks: the same chunk loop with models that run from static buffers and graphs.

What is computed once per chunk (the denoiser's context, the orchestrator's prefix, pictures) and once per step
(condition block, denoiser) are one static call each; see :class:`InferencePlan` for what else is done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from streamchar.denoiser.model import Context, Denoiser
from streamchar.errors import InputError
from streamchar.nn.fp8_linear import Fp8Linear, fits
from streamchar.nn.static_call import StaticCall
from streamchar.orchestrator.model import Orchestrator, Prefix
from streamchar.rollout.character import Character
from streamchar.rollout.chunk_loop import generate_chunk
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan
from streamchar.streaming.attention_choice import choose_attention
from streamchar.streaming.decoding import ChunkDecoder, ChunkJob, device_of
from streamchar.streaming.fast_video import FastVideo, prepare
from streamchar.streaming.inference_plan import InferencePlan
from streamchar.types import Conditions, Latents

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _How:
    """How a model's functions are called. ``pool``: memory that its CUDA graphs share."""

    device_type: str
    bf16: bool
    static: bool
    pool: Any = None

    def call(self, fn: Callable[..., Any], lend: bool = False, **options: Any) -> Callable[..., Any]:
        """``fn`` in that precision; as a :class:`StaticCall` with these options where calls are static.

        What is lent must outlive other graphs' replays, also of those that were recorded before it and whose passing
        results may lie anywhere in the shared memory: who lends has memory of its own.
        """

        def run(*arguments: Any) -> Any:
            # autocast's cache would keep alive what a graph has recorded
            with torch.autocast(self.device_type, torch.bfloat16, enabled=self.bf16, cache_enabled=False):
                return fn(*arguments)

        return StaticCall(run, lend=lend, pool=None if lend else self.pool, **options) if self.static else run


class FastDenoiser(Denoiser):
    """``inner``, faster; a context is valid until the next one is encoded."""

    def __init__(self, inner: Denoiser, how: _How) -> None:
        nn.Module.__init__(self)
        self.inner, self.config, self.clock = inner, inner.config, inner.clock
        self.window, self.positions = inner.window, inner.positions
        self._context = how.call(inner.encode_context, lend=True)
        self._step = how.call(inner.forward, adopt=frozenset({3}))

    def encode_context(self, c: Conditions, caption: Tensor | None = None) -> Context:
        """As ``inner``."""
        return self._context(c, caption)

    def forward(self, noisy: Latents, sigma: Tensor, c_a: Tensor, context: Context, audio_time: Tensor) -> Latents:
        """As ``inner``."""
        return self._step(noisy, sigma, c_a, context, audio_time)

    def null_like(self, c_a: Tensor, dropped: Tensor | None = None) -> Tensor:
        """As ``inner``."""
        return self.inner.null_like(c_a, dropped)


class FastOrchestrator(Orchestrator):
    """``inner``, faster; a prefix is valid until the next one of its kind."""

    def __init__(self, inner: Orchestrator, how: _How) -> None:
        nn.Module.__init__(self)
        self.inner, self.config, self.clock = inner, inner.config, inner.clock
        # blocks read the prefix where it is: copying it takes a launch for every layer's keys and values
        adopt = frozenset({0})
        self._prefix, self._untold_prefix = how.call(inner.prefix, lend=True), how.call(inner.untold_prefix, lend=True)
        self._block, self._untold_block = how.call(inner.block, adopt=adopt), how.call(inner.block, adopt=adopt)
        self._point = how.call(inner.point, adopt=adopt)
        self._untold: Prefix | None = None

    def prefix(self, c: Conditions) -> Prefix:
        """As ``inner``."""
        return self._prefix(c)

    def untold_prefix(self, c: Conditions) -> Prefix:
        """As ``inner``; lives beside the told one."""
        self._untold = self._untold_prefix(c)
        return self._untold

    def block(self, prefix: Prefix, audio: Tensor, sigma: Tensor) -> Tensor:
        """As ``inner``."""
        return (self._untold_block if prefix is self._untold else self._block)(prefix, audio, sigma)

    def point(self, prefix: Prefix, audio: Tensor) -> Tensor:
        """As ``inner``."""
        return self._point(prefix, audio)


def accelerate(character: Character, plan: InferencePlan) -> Character:
    """The same character on its device, prepared by ``plan``. Its models are changed in place: use the result alone.

    Raises:
        InputError: if FP8 is asked for on a GPU without it, or an attention kernel that is not there.
    """
    device = next(character.denoiser.parameters()).device
    _check(plan, device)
    if plan == InferencePlan():
        return character
    denoiser, orchestrator = character.denoiser, character.orchestrator
    for model in (denoiser, orchestrator):
        model.eval().requires_grad_(False)
    half = plan.bf16 or plan.fp8
    if plan.fp8:
        log.info("fp8: %d of the denoiser's linear layers, the rest in bf16", to_fp8(denoiser))
    if half:
        hold_bf16(denoiser)
        hold_bf16(orchestrator)
        choose_attention(plan.attention, character, device)
    if plan.compile:
        for block in denoiser.blocks:
            block.compile(dynamic=False)
        if not orchestrator.use_fast_llm():
            log.info("the orchestrator's language model is not of the Qwen2 family: its layers are not compiled")
    if plan.codecs:
        character = _fast_codecs(character, plan)
    pool = torch.cuda.graph_pool_handle() if plan.graphs and device.type == "cuda" else None
    how = _How(device.type, half, plan.graphs, pool)
    return replace(character, denoiser=FastDenoiser(denoiser, how), orchestrator=FastOrchestrator(orchestrator, how))


def _fast_codecs(character: Character, plan: InferencePlan) -> Character:
    """Codecs that are networks, prepared by ``plan``; they have graphs and memory of their own, for they run beside."""
    video, audio = character.video_codec, character.audio_codec
    if plan.graphs and audio is not None and hasattr(audio, "make_static"):
        audio.make_static()
    device = device_of(video)
    if not plan.graphs or not isinstance(video, nn.Module) or video is None:
        return character
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # shapes are fixed, and all are met before a stream begins
        side = character.size // video.spatial_stride
        prepare(video, (1, video.channels, character.clock.video_latents, side, side), plan.bf16 or plan.fp8,
                plan.compile)
    pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
    return replace(character, video_codec=FastVideo(
        video, lambda decode: StaticCall(decode, lend=True, pool=pool, urgent=True)))


def warm_up(character: Character, memory: StreamMemory, plans: Iterable[SamplePlan]) -> None:
    """Compile and record all that chunks with these plans need, on a copy of the stream.

    A plan met later in a stream would cost a chunk's time many times over, in the middle of it.
    """
    with torch.inference_mode():  # as a session does
        for plan in {(p.sink_latents, p.motion_latents): p for p in plans}.values():  # steps share one graph
            copied = memory.copy()
            for _ in range(1 if memory.chunk or not character.clock.first_frames else 2):  # the first may be shorter
                made = generate_chunk(character, copied, plan)
                _decode(character, made.latents)


def _decode(character: Character, latents: Latents) -> None:
    """Decode a chunk for nothing, in decoders of its own."""
    if character.video_codec is None or character.audio_codec is None:
        return
    streams = len(latents.video)
    decoder = ChunkDecoder(character.video_codec, character.audio_codec, streams)
    decoder.decode(ChunkJob(0, latents, [latents.audio.shape[1]] * streams, [True] * streams, [False] * streams, 0.0))


def to_fp8(denoiser: Denoiser) -> int:
    """Replace the linear layers of the video path in all blocks but the first and the last; returns how many.

    Left alone: projections in and out, time and modulation, norms, the sound's expert (few tokens, heard at once),
    cross-attention, the orchestrator (its blocks are as fast as its weights can be read, which takes milliseconds).
    """
    count = 0
    for block in list(denoiser.blocks)[1:-1]:
        for owner, names in ((block.attn1, ("to_q", "to_k", "to_v", "to_out")), (block.ffn_video, ("up", "down"))):
            for name in names:
                linear = getattr(owner, name)
                if isinstance(linear, nn.Linear) and fits(linear):
                    setattr(owner, name, Fp8Linear(linear))
                    count += 1
    return count


def hold_bf16(model: nn.Module) -> None:
    """Keep linear layers' weights and biases in bfloat16, which autocast would make of them at every call."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)


def _check(plan: InferencePlan, device: torch.device) -> None:
    if plan.fp8 and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        raise InputError(f"{torch.cuda.get_device_name(device)} has no FP8 tensor cores (compute capability 8.9 or "
                         "higher); use stream.engine=compiled")
