"""Denoising of one chunk, in training and in streams alike: few-step backward simulation or Euler (design, 8)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamchar.denoiser.guidance import guided_condition, guided_velocity
from streamchar.denoiser.model import Denoiser
from streamchar.diffusion.flow import clean_latents, noise_latents
from streamchar.diffusion.noise import Draws
from streamchar.orchestrator.model import Orchestrator, Prefix
from streamchar.rollout.plan import SamplePlan
from streamchar.types import Conditions, Latents


@dataclass
class Denoised:
    """``final``: the sample after all steps, detached. ``exit``: what is scored, with the exit step's gradient."""

    final: Latents
    exit: Latents | None


def start_noise(conditions: Conditions, denoiser: Denoiser, key: Draws) -> Latents:
    """The chunk's noise at step 0."""
    clock, (_, c, _, h, w) = denoiser.clock, conditions.ref.shape
    device = conditions.ref.device
    video = key.normal((c, conditions.video_latents or clock.video_latents, h, w), "video", device)
    audio = key.normal((conditions.audio_time.shape[1], denoiser.config.audio_channels), "audio", device)
    return Latents(video, audio)


def step_condition(orchestrator: Orchestrator, prefix: Prefix, untold: Prefix | None, audio: Tensor, sigma: Tensor,
                   plan: SamplePlan) -> tuple[Tensor, Tensor | None]:
    """What the denoiser hears in one step: ``c_a``, guided where the plan says so, and that of the null branch.

    ``untold``: the prefix without text; heard only where ``plan.needs_untold``.
    """
    c_a = orchestrator.block(prefix, audio, sigma)
    if untold is None or not plan.needs_untold:
        return c_a, None
    c_null = orchestrator.block(untold, audio, sigma)
    if plan.guidance_condition != 1.0:
        c_a = guided_condition(c_a, c_null, plan.guidance_condition)
    return c_a, c_null if plan.text_null else None


def denoise_chunk(denoiser: Denoiser, orchestrator: Orchestrator, conditions: Conditions, prefix: Prefix,
                  plan: SamplePlan, key: Draws, exit_step: int | None = None, exit_grad: bool = True,
                  stop_at_exit: bool = False, start: Latents | None = None, untold: Prefix | None = None) -> Denoised:
    """From noise to a chunk; ``start``: from these latents at the plan's first level in place of the chunk's noise.

    ``untold``: the prefix without text, where it is there already; else it is made here, if the plan needs it.
    Steps run without grad, except ``exit_step`` (with ``exit_grad``): there the context is recomputed with grad (else
    its projections would get none) and ``exit`` keeps its graph. Where clean estimates are re-noised it is that step's
    estimate, and ``stop_at_exit`` spares the steps after it (``final`` is then the exit's estimate). On an Euler path a
    step knows its own stretch only: ``exit`` is the final sample, moved by what moves the step's end [ours].
    Noise comes from ``key`` alone.
    """
    with torch.no_grad():
        context = denoiser.encode_context(conditions)
        if plan.needs_untold and untold is None:
            untold = orchestrator.untold_prefix(conditions)
    x, exit_sample = start or start_noise(conditions, denoiser, key.at(step=0)), None
    for step in range(plan.steps):
        sigma = plan.levels(x.audio, step)
        with torch.no_grad():
            c_a, c_null = step_condition(orchestrator, prefix, untold, x.audio, sigma, plan)
        grad = step == exit_step and exit_grad and torch.is_grad_enabled()
        with torch.set_grad_enabled(grad):
            seen = denoiser.encode_context(conditions) if grad else context
            v = guided_velocity(denoiser, x, sigma, c_a, seen, conditions.audio_time,
                                plan.guidance_video, plan.guidance_audio, c_null)
            reached = clean_latents(x, v, sigma) if plan.renoise else _euler(x, v, plan, step)
        if step == exit_step:
            if plan.renoise and stop_at_exit:
                return Denoised(reached.detach(), reached)
            exit_sample = reached
        x = _renoised(reached.detach(), plan, step, key) if plan.renoise else reached.detach()
    return Denoised(x, exit_sample if plan.renoise or exit_sample is None else _moved(x, exit_sample))


def _moved(final: Latents, by: Latents) -> Latents:
    """The value of ``final`` with the gradient of ``by``."""
    return Latents(final.video + (by.video - by.video.detach()), final.audio + (by.audio - by.audio.detach()))


def _euler(x: Latents, v: Latents, plan: SamplePlan, step: int) -> Latents:
    dt = plan.sigmas[step + 1] - plan.sigmas[step]
    return Latents(x.video + dt * v.video, x.audio + dt * v.audio)


def _renoised(clean: Latents, plan: SamplePlan, step: int, key: Draws) -> Latents:
    if step + 1 == plan.steps:
        return clean
    noise = key.at(step=step + 1 if plan.fresh_noise else 0).like(clean)
    return noise_latents(clean, noise, plan.levels(clean.audio, step + 1))
