"""A student's start: at its own noise levels it learns where the teacher's guided ODE leads.

The re-noising sampler jumps from each level to a clean estimate. The undistilled teacher's estimate is the mean over
all samples that the level leaves open, hence blurred; the end of the ODE is one of them. Distribution matching begins
best where the student already samples (the ODE initialisation of CausVid, Yin et al. 2025, with trajectories that
begin at noised real chunks instead of stored pairs). The Euler sampler only asks for the next level r, and there the
ODE begins where the student's own steps have come to (progressive distillation of Salimans and Ho 2022, on the
student's path):

    x_s = (1 - s) x + s eps, or the student's own;   x_r = ODE from x_s to r   (0 for the re-noising sampler)
    L = sum_m lambda_m mean (v_m - (x_s - x_r)_m / (s - r))^2
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
from streamchar.rollout.denoise import denoise_chunk, start_noise, step_condition
from streamchar.rollout.plan import SamplePlan, teacher_plan
from streamchar.types import Conditions, Latents


def trajectory_losses(student: Denoiser, teacher: Denoiser, orchestrator: Orchestrator, conditions: Conditions,
                      prefix: Prefix, real: Latents, audio_weight: Tensor, key: NoiseKey, plan: SamplePlan, step: int,
                      config: DiffusionConfig, steps: int, untold: Prefix | None = None) -> tuple[Tensor, Tensor]:
    """Per-sample losses (B,) of video and audio at one step of the student's plan.

    Args:
        real: clean chunks, which are noised where the plan re-noises; at level 1 nothing of them is left.
        audio_weight: (B, Ta), 0 for surplus latents.
        steps: the teacher's Euler steps of the whole way from noise; of a part of it proportionally fewer.
        untold: the prefix without text, where it is there already; one serves the student's steps and the teacher's.
    """
    level, reach = plan.sigmas[step], plan.reach(step)
    way = teacher_plan(config, steps, level, reach)
    with torch.no_grad():
        if untold is None and (plan.needs_untold or way.needs_untold):
            untold = orchestrator.untold_prefix(conditions)
        if plan.renoise:
            eps = start_noise(conditions, student, key)
            noisy = noise_latents(real, eps, eps.audio.new_full((len(key.index),), level))
        else:
            noisy = denoise_chunk(student, orchestrator, conditions, prefix, plan.until(step), key, untold=untold).final
        sigma = plan.levels(noisy.audio, step)
        c_a, _ = step_condition(orchestrator, prefix, untold, noisy.audio, sigma, plan)
        end = denoise_chunk(teacher, orchestrator, conditions, prefix, way, key, start=noisy, untold=untold).final
    v = student(noisy, sigma, c_a, student.encode_context(conditions), conditions.audio_time)
    video = video_mean((v.video - (noisy.video - end.video) / (level - reach)).square())
    return video, audio_mean((v.audio - (noisy.audio - end.audio) / (level - reach)).square(), audio_weight)
