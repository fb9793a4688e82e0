"""The condition that video latents are given is that of their own frames, at any pair of rates."""

from __future__ import annotations

import pytest
import torch

from streamchar.clock import ChunkClock
from streamchar.denoiser.frame_condition import FrameCondition, frame_weights

WAN = ChunkClock(fps=24.0, chunk_frames=33, audio_rate=25.0, sample_rate=16000)


def times(clock: ChunkClock, late: float = 0.0) -> torch.Tensor:
    return late + torch.arange(clock.audio_latents)[None] / clock.audio_rate


def test_equal_rates_pair_frames_with_latents():
    clock = ChunkClock(fps=25.0, chunk_frames=33, audio_rate=25.0, sample_rate=16000)
    torch.testing.assert_close(frame_weights(times(clock), clock)[0], torch.eye(33), atol=1e-4, rtol=0)


@pytest.mark.parametrize("late", [0.0, 0.013])
@pytest.mark.parametrize("rate", [25.0, 32.0, 50.0])
def test_interpolation_is_exact_in_time(rate, late):
    clock = ChunkClock(fps=24.0, chunk_frames=33, audio_rate=rate, sample_rate=16000)
    at = times(clock, late)
    weight = frame_weights(at, clock)[0]
    middle = at[0] + 0.5 / rate
    frames = ((torch.arange(33) + 0.5) / 24).clamp(float(middle[0]), float(middle[-1]))
    torch.testing.assert_close(weight @ middle, frames)
    torch.testing.assert_close(weight.sum(-1), torch.ones(33))


def test_a_latent_sees_its_own_frames_only():
    layer = FrameCondition(8, WAN)
    torch.nn.init.normal_(layer.mix.weight)
    quiet = torch.zeros(1, WAN.audio_latents, 8)
    loud = quiet.clone()
    loud[:, 20] = 1.0  # 0.80 to 0.84 s: frames 19 and 20, of latent 5 (frames 17 to 20)
    moved = (layer(loud, times(WAN)) - layer(quiet, times(WAN))).abs().sum(-1)[0]
    assert moved.nonzero().flatten().tolist() == [5]


def test_it_begins_as_the_paper():
    layer = FrameCondition(8, WAN)
    assert not layer(torch.randn(2, WAN.audio_latents, 8), times(WAN).expand(2, -1)).any()
