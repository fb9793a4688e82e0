"""Arithmetic of the orchestrator and the bytes it keeps for its backward pass, beside the architecture, per sample.

Multiply-add = 2. Its LM is of the Qwen2 family: attention with grouped keys and values, and a gated MLP. A chunk's
prefix is run once; its block at every denoising step, over the prefix's keys.
"""

from __future__ import annotations

from streamchar.clock import ChunkClock
from streamchar.orchestrator.config import OrchestratorConfig
from streamchar.window import WindowConfig

WIDE = 4


def prefix_tokens(clock: ChunkClock, window: WindowConfig) -> int:
    """Tokens of text, mark and history."""
    return window.max_spoken + 1 + window.max_todo + window.anchor_latents(clock) + window.recent_latents(clock)


def prefix_flops(config: OrchestratorConfig, clock: ChunkClock, window: WindowConfig) -> int:
    """The prefix, once per chunk."""
    n = prefix_tokens(clock, window)
    return _flops(config, n, n)


def block_flops(config: OrchestratorConfig, clock: ChunkClock, window: WindowConfig, condition_width: int) -> int:
    """One run of the condition block, with the projection to ``c_a``."""
    n = clock.audio_latents
    return _flops(config, n, n + prefix_tokens(clock, window)) + 2 * n * config.width * condition_width


def prefix_bytes(config: OrchestratorConfig, clock: ChunkClock, window: WindowConfig, narrow: int, mode: str) -> int:
    """Kept for the prefix's backward pass."""
    n = prefix_tokens(clock, window)
    return _bytes(config, n, n, narrow, mode)


def block_bytes(config: OrchestratorConfig, clock: ChunkClock, window: WindowConfig, narrow: int, mode: str) -> int:
    """Kept for a block's backward pass."""
    n = clock.audio_latents
    return _bytes(config, n, n + prefix_tokens(clock, window), narrow, mode)


def pair_bytes(config: OrchestratorConfig, clock: ChunkClock, window: WindowConfig, narrow: int) -> int:
    """Gradients of the prefix's keys and values, which lie in those of all keys of a block."""
    width = config.width * config.kv_heads // config.heads
    return config.layers * narrow * 2 * (clock.audio_latents + prefix_tokens(clock, window)) * width


def _flops(config: OrchestratorConfig, n: int, keys: int) -> int:
    width, pairs = config.width, config.width * config.kv_heads // config.heads
    linear = 2 * n * width * (2 * width + 2 * pairs + 3 * config.ffn)
    return config.layers * (linear + 4 * n * keys * width)


def _bytes(config: OrchestratorConfig, n: int, keys: int, narrow: int, mode: str) -> int:
    """wide: both norms' inputs and results; narrow: inputs of products, queries, keys and values of all heads, and four
    times the MLP's hidden width, which the modes that recompute give up for its input; ``selective`` keeps the first
    and the last of its three products."""
    width, half = config.width, narrow != WIDE
    kept = WIDE * 4 * width * n + narrow * (((3 if half else 1) + 2) * width * n + 2 * keys * width)
    if mode == "keep":
        kept += narrow * ((2 if half else 1) * width + 4 * config.ffn) * n
    else:
        kept += WIDE * width * n + (narrow * (config.ffn + width) * n if mode == "selective" else 0)
    return config.layers * kept
