"""``c_a`` for the video tokens too: each video latent is given the conditions of its own frames [ours].

The paper adds ``c_a`` to the audio tokens alone, and leaves it to attention to find which sound belongs to which frame.
A small model has no time to learn that; here the clock tells it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamchar.clock import ChunkClock


class FrameCondition(nn.Module):
    """(B, Ta, D) ``c_a`` -> (B, Tv, D), to be added to the tokens of each video latent; zero at the start of training.

    ``c_a`` is interpolated at the middle of every frame; the frames of a latent are then mixed by one projection. The
    first latent holds a single frame, which stands for all.
    """

    def __init__(self, width: int, clock: ChunkClock) -> None:
        super().__init__()
        self.clock = clock
        self.mix = nn.Linear(clock.temporal_stride * width, width)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)

    def forward(self, c_a: Tensor, audio_time: Tensor) -> Tensor:
        """audio_time (B, Ta): seconds of the audio latents' start relative to the chunk's start."""
        weight = frame_weights(audio_time, self.clock).to(c_a.dtype)
        frames = torch.einsum("bft,btd->bfd", weight, c_a)  # (B, F, D)
        first = frames[:, :1].expand(-1, self.clock.temporal_stride - 1, -1)
        groups = torch.cat((first, frames), dim=1).unflatten(1, (-1, self.clock.temporal_stride))
        return self.mix(groups.flatten(2))


def frame_weights(audio_time: Tensor, clock: ChunkClock) -> Tensor:
    """(B, F, Ta) weights of linear interpolation from audio latents to frames, both taken at their middle; rows sum to
    1, also for frames outside of the first and last latent's middle."""
    middle = audio_time + 0.5 / clock.audio_rate
    frames = (torch.arange(clock.chunk_frames, device=audio_time.device) + 0.5) / clock.fps
    at = torch.minimum(torch.maximum(frames[None], middle[:, :1]), middle[:, -1:])
    near = (1 - (at[:, :, None] - middle[:, None, :]).abs() * clock.audio_rate).clamp_min(0)
    return near / near.sum(dim=-1, keepdim=True)
