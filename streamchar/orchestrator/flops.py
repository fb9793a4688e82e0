"""Floating-point operations of the orchestrator, counted beside the architecture (multiply-add = 2)."""

from __future__ import annotations

from streamchar.clock import ChunkClock
from streamchar.orchestrator.config import OrchestratorConfig
from streamchar.window import WindowConfig


def layer_weights(config: OrchestratorConfig) -> int:
    """Weights of the LM's linear layers, all layers together."""
    d, kv = config.width, config.width // config.heads * config.kv_heads
    return config.layers * (2 * d * d + 2 * d * kv + 3 * d * config.ffn)


def prefix_tokens(clock: ChunkClock, window: WindowConfig) -> int:
    """Tokens before the condition block: text, mark, history."""
    return (window.max_spoken + 1 + window.max_todo
            + window.anchor_latents(clock) + window.recent_latents(clock))


def _flops(config: OrchestratorConfig, tokens: int, keys: int) -> int:
    return 2 * layer_weights(config) * tokens + config.layers * 2 * 2 * config.width * tokens * keys


def prefix_flops(config: OrchestratorConfig, clock: ChunkClock, window: WindowConfig) -> int:
    """The prefix of one sample, once per chunk; masked attention is computed whole."""
    tokens = prefix_tokens(clock, window)
    return _flops(config, tokens, tokens)


def block_flops(config: OrchestratorConfig, clock: ChunkClock, window: WindowConfig) -> int:
    """One condition block of one sample."""
    return _flops(config, clock.audio_latents, prefix_tokens(clock, window) + clock.audio_latents)
