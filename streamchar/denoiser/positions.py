"""Where every token sits: (time, height, width) in latent-frame units relative to the chunk's start (design, 4).

A video latent's time is that of its last frame: latent i of the chunk sits at i; motion latent i of the previous
chunk at i - chunk_frames / 4. Sink and reference keep a fixed place before the chunk whatever the chunk's number, so
that hour-long streams stay in distribution. Audio lies on the time axis only, at seconds x fps / 4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamchar.clock import ChunkClock
from streamchar.denoiser.config import DenoiserConfig


def video_grid(times: Tensor, height: int, width: int) -> Tensor:
    """(T,) times and a token grid -> (T * height * width, 3)."""
    h = torch.arange(height, dtype=times.dtype, device=times.device)
    w = torch.arange(width, dtype=times.dtype, device=times.device)
    return torch.stack(torch.meshgrid(times, h, w, indexing="ij"), dim=-1).reshape(-1, 3)


def audio_line(seconds: Tensor, clock: ChunkClock) -> Tensor:
    """(..., T) start times of audio latents relative to the chunk -> (..., T, 3), placed at each latent's middle."""
    times = (seconds + 0.5 / clock.audio_rate) * clock.fps / clock.temporal_stride
    return torch.stack((times, torch.zeros_like(times), torch.zeros_like(times)), dim=-1)


class TokenPositions:
    """Positions of every group for one clock, window and token grid."""

    def __init__(self, config: DenoiserConfig, clock: ChunkClock, motion: int, sink: int) -> None:
        self.clock = clock
        chunk = clock.chunk_frames / clock.temporal_stride
        self.video_times = torch.arange(clock.video_latents, dtype=torch.float32)
        self.motion_times = self.video_times[clock.video_latents - motion:] - chunk
        self.sink_times = torch.arange(sink, dtype=torch.float32) - config.sink_gap * chunk
        self.ref_times = torch.tensor([-config.ref_gap * chunk])
        self._grids: dict[tuple[object, ...], Tensor] = {}  # on their device: a copy per call would make the host wait

    def _grid(self, times: Tensor, height: int, width: int, device: torch.device, *key: object) -> Tensor:
        key = (*key, height, width, device)
        if key not in self._grids:
            with torch.inference_mode(False):
                self._grids[key] = video_grid(times, height, width)[None].to(device)
        return self._grids[key]

    def noisy_video(self, count: int, height: int, width: int, device: torch.device) -> Tensor:
        """(1, count h w, 3)."""
        return self._grid(self.video_times[:count], height, width, device, count)

    def noisy_audio(self, audio_time: Tensor) -> Tensor:
        """(B, Ta) start seconds -> (B, Ta, 3)."""
        return audio_line(audio_time, self.clock)

    def context_video(self, height: int, width: int, sink: int, motion: int, device: torch.device) -> Tensor:
        """(1, (1 + sink + motion) h w, 3): ref, the first ``sink`` latents of the sink, the last of the motion."""
        late = self.motion_times[len(self.motion_times) - motion:]
        times = torch.cat((self.ref_times, self.sink_times[:sink], late))
        return self._grid(times, height, width, device, sink, motion)

    def past_audio(self, count: int, audio_time: Tensor) -> Tensor:
        """(B, Tp, 3): the ``count`` latents just before the chunk's first audio latent."""
        back = torch.arange(-count, 0, device=audio_time.device, dtype=torch.float32) / self.clock.audio_rate
        return audio_line(audio_time[:, :1] + back, self.clock)
