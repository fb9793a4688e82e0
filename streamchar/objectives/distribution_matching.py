"""Distribution matching distillation: generator and critic objectives (design, section 8).

    R_m = R_cond + (w_m - 1)(R_cond - R_null)          m in {video, audio}
    g_m = (F_m - R_m) / mean|x_m - R_m|                per sample and per modality; x0 form; nan -> 0
    L_G = sum_m lambda_m 1/2 mean (x_m - sg(x_m - g_m))^2
    L_F = sum_m lambda_m mean (F_velocity_m - (eps_m - x_m))^2
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamchar.denoiser.guidance import guided_velocity
from streamchar.denoiser.model import Denoiser
from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.flow import clean_latents, noise_latents
from streamchar.diffusion.noise import NoiseKey
from streamchar.diffusion.schedule import score_sigmas
from streamchar.objectives.per_sample import audio_mean, video_mean
from streamchar.orchestrator.model import Orchestrator, Prefix
from streamchar.types import Conditions, Latents


@dataclass
class Scored:
    """What teacher and critic score with: the student's very conditions, the noise level, and c_a at that level
    (``c_null``: without text, where guidance leads away from that)."""

    noisy: Latents
    eps: Latents
    sigma: Tensor
    c_a: Tensor
    c_null: Tensor | None = None


@dataclass
class MatchingLosses:
    """Per sample, each (B,): generator or critic losses by modality, size of the gradient, the noise level."""

    video: Tensor
    audio: Tensor
    gradient_video: Tensor
    gradient_audio: Tensor
    sigma: Tensor


def renoise(sample: Latents, orchestrator: Orchestrator, prefix: Prefix, key: NoiseKey,
            config: DiffusionConfig, untold: Prefix | None = None) -> Scored:
    """Noise a sample to a fresh level and rerun the condition block on it; one result serves teacher and critic.

    ``untold``: the prefix of the same conditions without text, for the teacher's guidance.
    """
    sample = sample.detach()
    sigma = score_sigmas(key.uniform((), "t", sample.audio.device), config)
    eps = key.like(sample, "score")
    noisy = noise_latents(sample, eps, sigma)
    with torch.no_grad():
        c_a = orchestrator.block(prefix, noisy.audio, sigma)
        c_null = None if untold is None else orchestrator.block(untold, noisy.audio, sigma)
    return Scored(noisy, eps, sigma, c_a, c_null)


def normalised_gradient(fake: Tensor, real: Tensor, sample: Tensor, weight: Tensor | None = None) -> Tensor:
    """``(F - R) / mean|x - R|`` per sample, nan -> 0; ``weight`` (B, T) excludes surplus audio latents."""
    distance = (sample - real).abs()
    scale = video_mean(distance) if weight is None else audio_mean(distance, weight)
    gradient = (fake - real) / scale.reshape(-1, *[1] * (sample.ndim - 1))
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def surrogate(sample: Tensor, gradient: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B,) ``1/2 mean (x - sg(x - g))^2``, whose derivative by x is ``g / numel`` of the sample."""
    error = 0.5 * (sample - (sample - gradient).detach()).square()
    return video_mean(error) if weight is None else audio_mean(error, weight)


def generator_losses(sample: Latents, scored: Scored, teacher: Denoiser, critic: Denoiser, conditions: Conditions,
                     audio_weight: Tensor, config: DiffusionConfig) -> MatchingLosses:
    """Generator objective on ``sample``, which carries gradient; teacher and critic run without.

    Raises:
        ValueError: if guidance leads away from no text and ``scored`` holds no c_a of that.
    """
    if config.text_null and scored.c_null is None:
        raise ValueError("guidance_null=text: renoise(..., untold=) must be given the prefix without text")
    with torch.no_grad():
        time = conditions.audio_time
        v_real = guided_velocity(teacher, scored.noisy, scored.sigma, scored.c_a, teacher.encode_context(conditions),
                                 time, config.guidance_video, config.guidance_audio, scored.c_null)
        v_fake = critic(scored.noisy, scored.sigma, scored.c_a, critic.encode_context(conditions), time)
        real, fake = (clean_latents(scored.noisy, v, scored.sigma) for v in (v_real, v_fake))
        g_video = normalised_gradient(fake.video, real.video, sample.video)
        g_audio = normalised_gradient(fake.audio, real.audio, sample.audio, audio_weight)
    return MatchingLosses(surrogate(sample.video, g_video), surrogate(sample.audio, g_audio, audio_weight),
                          video_mean(g_video.abs()), audio_mean(g_audio.abs(), audio_weight), scored.sigma)


def critic_losses(critic: Denoiser, sample: Latents, scored: Scored, conditions: Conditions,
                  audio_weight: Tensor) -> MatchingLosses:
    """Critic objective: flow matching on the student's own samples, without guidance."""
    sample = sample.detach()
    v = critic(scored.noisy, scored.sigma, scored.c_a, critic.encode_context(conditions), conditions.audio_time)
    video = video_mean((v.video - (scored.eps.video - sample.video)).square())
    audio = audio_mean((v.audio - (scored.eps.audio - sample.audio)).square(), audio_weight)
    zero = torch.zeros_like(video)
    return MatchingLosses(video, audio, zero, zero, scored.sigma)
