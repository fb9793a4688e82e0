"""Held-out scores of a student: the mouth's lag is measured on what the latents decode to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_modules.held_out import STREAM_CHUNKS, Draws, HeldOutScores
from streamchar.clock import ChunkClock
from streamchar.diffusion.flow import clean_latents, noise_latents
from streamchar.diffusion.noise import NoiseKey
from streamchar.rollout.denoise import start_noise
from streamchar.rollout.plan import student_plan
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


def test_spread_tells_blur_from_over_saturation():
    scores = HeldOutScores(tiny.character(), tiny.denoiser(), 0)
    made = Latents(torch.randn(2, 3, 2, 4, 4) + 5, torch.randn(2, 17, 5) - 2)
    other = Latents((made.video - 5) * 1.5 + 4, made.audio * 0.5)
    scores.samples = {"teacher_full": [Draws(made, made, made)], "student": [Draws(other, other, other)]}
    found = scores.scores()
    assert found["eval/student_spread_video"] == pytest.approx(1.5)
    assert found["eval/student_spread_audio"] == pytest.approx(0.5)
    assert found["eval/teacher_full_spread_audio"] == pytest.approx(1)


def test_without_a_detector_lip_sync_is_not_scored():
    character = tiny.character()
    scores = HeldOutScores(character, character.denoiser, 0)
    made = Latents(torch.randn(2, 3, 2, 4, 4), torch.randn(2, 17, 5))
    scores.samples = {"teacher_full": [Draws(made, made, made)], "student": [Draws(made, made, made)]}
    assert not [key for key in scores.scores() if "lag" in key or "desync" in key]


@torch.no_grad()
def test_draws_differ_and_the_same_noise_decides_the_sample():
    character = tiny.character()
    scores = HeldOutScores(character, character.denoiser, 0)
    streams = tiny.streams([["bin", "red", "at", "c", "nine"] * 4])
    scores.add(streams, 0)
    few, full = scores.samples["teacher_few"], scores.samples["teacher_full"]
    assert len(few) == len(full) == 3 and full[0].same is full[0].first
    for made, like in zip(few, scores.samples["student"], strict=True):  # an untrained student is the teacher
        assert torch.equal(made.first.video, like.first.video) and torch.equal(made.same.audio, like.same.audio)
        assert not torch.equal(made.first.video, made.second.video)
        assert not torch.equal(made.first.video, made.same.video)
    key = NoiseKey.of(0, streams.index, "stream").at(chunk=0, step=0)
    memory = character.start(streams, 0)
    conditions, _ = memory.conditions()
    plan = replace(student_plan(character.diffusion), fresh_noise=False)
    noise = start_noise(conditions, character.denoiser, key)
    x, prefix = noise, character.orchestrator.prefix(conditions)
    for level in plan.sigmas:  # by hand: every re-noising uses the first noise
        sigma = torch.full((1,), level)
        c_a = character.orchestrator.block(prefix, x.audio, sigma)
        v = character.denoiser(x, sigma, c_a, character.denoiser.encode_context(conditions), conditions.audio_time)
        clean = clean_latents(x, v, sigma)
        later = [s for s in plan.sigmas if s < level]
        x = noise_latents(clean, noise, torch.full((1,), later[0])) if later else clean
    torch.testing.assert_close(x.video, few[0].same.video, atol=1e-4, rtol=1e-4)


def test_streams_that_end_early_go_on_in_all_systems():
    """Ranks that share a model out must run it equally often, whenever their streams' texts end."""
    character = tiny.character()
    scores = HeldOutScores(character, character.denoiser, 0)
    for number, words in enumerate(([], ["bin"] * 30)):
        scores.add(tiny.streams([words]), number)
    assert {name: len(found) for name, found in scores.samples.items()} == dict.fromkeys(scores.systems,
                                                                                         2 * STREAM_CHUNKS)
