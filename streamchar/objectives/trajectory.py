"""A student's start: at its own noise levels it learns where the teacher's guided ODE ends.

The few-step sampler jumps from each level to a clean estimate. The undistilled teacher's estimate is the mean over all
samples that the level leaves open, hence blurred; the end of the ODE is one of them. Distribution matching begins best
where the student already samples (the ODE initialisation of CausVid, Yin et al. 2025, with trajectories that begin at
noised real chunks instead of stored pairs):

    x_s = (1 - s) x + s eps,   x_0 = ODE end from x_s,   L = sum_m lambda_m mean (v_m - (x_s - x_0)_m / s)^2
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamchar.denoiser.model import Denoiser
from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.flow import noise_latents
from streamchar.diffusion.noise import NoiseKey
from streamchar.objectives.per_sample import audio_mean, video_mean
from streamchar.orchestrator.model import Orchestrator, Prefix
from streamchar.rollout.denoise import denoise_chunk, start_noise
from streamchar.rollout.plan import teacher_plan
from streamchar.types import Conditions, Latents


def trajectory_losses(student: Denoiser, teacher: Denoiser, orchestrator: Orchestrator, conditions: Conditions,
                      prefix: Prefix, real: Latents, audio_weight: Tensor, key: NoiseKey, level: float,
                      config: DiffusionConfig, steps: int) -> tuple[Tensor, Tensor]:
    """Per-sample losses (B,) of video and audio at one of the student's noise levels.

    Args:
        real: clean chunks; at level 1 nothing of them is left.
        audio_weight: (B, Ta), 0 for surplus latents.
        steps: Euler steps of the whole way from noise; from a lower level proportionally fewer.
    """
    with torch.no_grad():
        eps = start_noise(conditions, student, key)
        sigma = eps.audio.new_full((len(key.index),), level)
        noisy = noise_latents(real, eps, sigma)
        c_a = orchestrator.block(prefix, noisy.audio, sigma)
        end = denoise_chunk(teacher, orchestrator, conditions, prefix, teacher_plan(config, steps, level), key,
                            start=noisy).final
    v = student(noisy, sigma, c_a, student.encode_context(conditions), conditions.audio_time)
    video = video_mean((v.video - (noisy.video - end.video) / level).square())
    return video, audio_mean((v.audio - (noisy.audio - end.audio) / level).square(), audio_weight)
