"""Floating-point operations of the denoiser, counted beside the architecture (multiply-add = 2)."""

from __future__ import annotations

from streamchar.clock import ChunkClock
from streamchar.denoiser.config import DenoiserConfig
from streamchar.window import WindowConfig


def _tokens_flops(config: DenoiserConfig, video: int, audio: int, keys: int) -> int:
    d, n = config.width, video + audio
    linear = 2 * 4 * d * d * n + 2 * 2 * d * (config.ffn * video + config.audio_ffn * audio)
    if config.caption_dim:
        linear += 2 * 2 * d * d * n  # queries and output of cross-attention; a caption itself is short
    return config.layers * (linear + 2 * 2 * d * n * keys)


def chunk_tokens(config: DenoiserConfig, clock: ChunkClock, window: WindowConfig,
                 grid: int | tuple[int, int]) -> dict[str, int]:
    """Tokens per group for a latent grid of ``grid`` x ``grid``, or of (height, width)."""
    height, width = (grid, grid) if isinstance(grid, int) else grid
    frame = (height // config.patch) * (width // config.patch)
    return {"ref": frame, "sink": window.sink_latents * frame, "motion": window.motion_latents * frame,
            "past_audio": window.past_latents(clock), "video": clock.video_latents * frame,
            "audio": clock.audio_latents}


def context_flops(config: DenoiserConfig, clock: ChunkClock, window: WindowConfig,
                  grid: int | tuple[int, int]) -> int:
    """One pass over the context tokens of one sample."""
    t = chunk_tokens(config, clock, window, grid)
    video = t["ref"] + t["sink"] + t["motion"]
    return _tokens_flops(config, video, t["past_audio"], video + t["past_audio"])


def step_flops(config: DenoiserConfig, clock: ChunkClock, window: WindowConfig,
               grid: int | tuple[int, int]) -> int:
    """One denoising step of one sample with cached context."""
    t = chunk_tokens(config, clock, window, grid)
    return _tokens_flops(config, t["video"], t["audio"], sum(t.values()))


def context_backward_flops(config: DenoiserConfig, clock: ChunkClock, window: WindowConfig, grid: int) -> int:
    """The backward pass of :func:`context_flops`: twice that, but of the last block only keys and values are used."""
    t = chunk_tokens(config, clock, window, grid)
    tokens = t["ref"] + t["sink"] + t["motion"] + t["past_audio"]
    one = context_flops(config, clock, window, grid) // config.layers
    return 2 * ((config.layers - 1) * one + 2 * 2 * config.width**2 * tokens)
