"""What a chunk must cost: FLOPs and bytes of every part, and the floor that a device's peaks give (multiply-add = 2).

Bytes: bf16 weights once per call (8-bit ones half), keys and values of context and prefix, and what passes between
kernels if everything but matrix products and attention is fused. A part's floor is the larger of FLOPs / peak and
bytes / bandwidth; parts follow one another, but decoding and writing run beside the next chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.flops import chunk_tokens, context_flops, step_flops
from streamchar.hub.model_spec import ModelSpec
from streamchar.orchestrator.flops import block_flops, layer_weights, prefix_flops, prefix_tokens

HALF = 2


@dataclass(frozen=True)
class Part:
    """One part of a chunk: how often it is called, FLOPs and bytes of a call."""

    name: str
    calls: int
    flops: float
    bytes: float

    def floor_s(self, peak: float, bandwidth: float) -> float:
        """Seconds of all its calls at ``peak`` FLOP/s and ``bandwidth`` bytes/s."""
        return self.calls * max(self.flops / peak, self.bytes / bandwidth)


def chunk_parts(spec: ModelSpec, grid: tuple[int, int], steps: int, decode_flops: float = 0.0) -> list[Part]:
    """The parts of a chunk that run on the device, in order. ``decode_flops``: of its pictures, counted by torch."""
    d, o, clock, window = spec.denoiser, spec.orchestrator, spec.clock, spec.window
    tokens = chunk_tokens(d, clock, window, grid)
    noisy, keys = tokens["video"] + tokens["audio"], sum(tokens.values())
    weights, llm = HALF * denoiser_weights(d), HALF * layer_weights(o)
    head = o.width // o.heads * o.kv_heads
    prefix_kv = HALF * 2 * o.layers * head * prefix_tokens(clock, window)
    context_kv = HALF * 2 * d.layers * d.width * (keys - noisy)
    return [
        Part("orchestrator prefix", 1, prefix_flops(o, clock, window), llm + prefix_kv),
        Part("denoiser context", 1, context_flops(d, clock, window, grid),
             weights + context_kv + _between(d, keys - noisy)),
        Part("condition block", steps, block_flops(o, clock, window), llm + prefix_kv),
        Part("denoising step", steps, step_flops(d, clock, window, grid),
             weights + 3 * context_kv + _between(d, noisy)),
        Part("pointer", 1, block_flops(o, clock, window), llm + prefix_kv),
        Part("video decode", 1, decode_flops, 0.0)]


def denoiser_weights(config: DenoiserConfig) -> int:
    """Weights of all blocks' linear layers."""
    return config.layers * config.width * (4 * config.width + 2 * config.ffn + 2 * config.audio_ffn)


def _between(config: DenoiserConfig, tokens: int) -> float:
    """Bytes that pass between kernels: per token and layer the float32 residual twice in and out, two modulated inputs,
    queries, keys, values (once more where rotated) and attention's output in bf16, and the hidden layer in and out."""
    per_token = config.width * (4 * 4 + 2 * 2 * HALF + 12 * HALF) + 2 * config.ffn * HALF
    return config.layers * float(tokens * per_token)
