"""The orchestrator alone in the chunk loop: its own head makes the sound, pictures stay noise."""

from __future__ import annotations

from dataclasses import replace

import torch

from streamchar.diffusion.noise import NoiseKey
from streamchar.evaluation.speech_only import SpeechOnlyDenoiser
from streamchar.rollout.chunk_loop import generate_chunk
from streamchar.rollout.plan import SamplePlan
from tests import tiny_models as tiny

WORDS = [["bin", "red", "at"], ["set", "blue"]]


@torch.no_grad()
def test_the_head_makes_the_sound_and_pictures_stay_noise():
    whole = tiny.character()
    alone = replace(whole, denoiser=SpeechOnlyDenoiser(whole.orchestrator, whole.denoiser.config))
    memory = alone.start(tiny.streams(WORDS), seed=3)
    conditions, _ = memory.conditions()
    result = generate_chunk(alone, memory, SamplePlan((1.0, 0.0), renoise=False))  # one Euler step
    key = NoiseKey.of(3, memory.index, "stream", 0).at(chunk=0, step=0)
    eps = key.normal(result.latents.audio.shape[1:], "audio", torch.device("cpu"))
    c_a = alone.orchestrator.block(alone.orchestrator.prefix(conditions), eps, torch.ones(2))
    torch.testing.assert_close(result.latents.audio, eps - alone.orchestrator.velocity(c_a, eps))
    noise = key.normal(result.latents.video.shape[1:], "video", torch.device("cpu"))
    torch.testing.assert_close(result.latents.video, noise)
    assert bool((result.pointer_after >= result.pointer_before).all())
