"""Held-out scores of a student: the mouth's lag is measured on what the latents decode to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.held_out import Draws, HeldOutScores
from streamchar.clock import ChunkClock
from streamchar.types import Latents
from tests import tiny_models as tiny

CLOCK = ChunkClock(fps=25.0, chunk_frames=33, audio_rate=25.0, sample_rate=8000)


class Pictures:
    """One latent channel that is the picture's brightness, frame by frame."""

    def decode(self, latents):
        return latents[:, 0, :, None].expand(-1, -1, 3, -1, -1)


class Sound:
    """One latent that is the loudness of its 40 ms."""

    def decode(self, latents):
        noise = torch.randn(len(latents), 320, generator=torch.Generator().manual_seed(0))
        return (noise * latents[:, :1].clamp_min(0)).flatten()


class Brightness:
    def opening(self, frames):
        return frames.astype(np.float64).mean(axis=(1, 2, 3))


@pytest.mark.parametrize("late", [0, 3])
def test_lag_of_the_mouth_behind_the_sound(late):
    character = tiny.character()
    character.clock, character.video_codec, character.audio_codec = CLOCK, Pictures(), Sound()
    scores = HeldOutScores(character, character.denoiser, 0, Brightness())
    level = torch.rand(12, 33 + late, generator=torch.Generator().manual_seed(1))
    made = Latents(level[:, None, :33, None, None].expand(-1, -1, -1, 4, 4), level[:, late:, None])
    scores.samples = {"teacher_full": [Draws(made, made, made)], "student": [Draws(made, made, made)]}
    found = scores.scores()
    assert found["eval/student_lag_frames"] == late
    assert found["eval/student_distance_video"] == 0
    assert (found["eval/student_desync"] < 0.3) == (late == 0)


def test_without_a_detector_lip_sync_is_not_scored():
    character = tiny.character()
    scores = HeldOutScores(character, character.denoiser, 0)
    made = Latents(torch.randn(2, 3, 2, 4, 4), torch.randn(2, 17, 5))
    scores.samples = {"teacher_full": [Draws(made, made, made)], "student": [Draws(made, made, made)]}
    assert not [key for key in scores.scores() if "lag" in key or "desync" in key]
