"""Sizes that follow from codec, clock and data together: the chunk's latents. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config.schema import RunConfig
from streamchar.clock import ChunkClock


@dataclass(frozen=True)
class Geometry:
    """The latents of one chunk: video (video_channels, clock.video_latents, grid, grid), audio (~, audio_channels)."""

    clock: ChunkClock
    grid: int
    video_channels: int
    audio_channels: int


def geometry(cfg: RunConfig) -> Geometry:
    """What the configured codecs make of the configured pictures.

    Raises:
        InputError: if the clock's numbers do not fit together, or a codec's folder is not there.
    """
    channels, latent_rate, sample_rate = cfg.codec.audio.layout()
    clock = cfg.clock.chunk_clock(latent_rate, sample_rate)
    video_channels, stride = cfg.codec.video.layout()
    return Geometry(clock, cfg.data.size // stride, video_channels, channels)
