"""Teacher pretraining: joint flow matching, L = MSE_video + MSE_audio, one t for both (paper; design, section 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streamchar.denoiser.model import Denoiser
from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.flow import noise_latents
from streamchar.diffusion.noise import NoiseKey
from streamchar.objectives.conditioning import dropped_condition
from streamchar.objectives.drops import DropConfig
from streamchar.objectives.per_sample import audio_mean, video_mean
from streamchar.objectives.speech import draw_sigma, pointer_loss
from streamchar.orchestrator.model import Orchestrator
from streamchar.types import ChunkBatch


@dataclass
class JointLosses:
    """Per sample, each (B,): flow-matching errors, the orchestrator head's own, noise level; pointer loss (0 where
    the text is hidden) and end."""

    video: Tensor
    audio: Tensor
    head: Tensor
    pointer: Tensor
    predicted: Tensor
    sigma: Tensor


def joint_losses(denoiser: Denoiser, orchestrator: Orchestrator, batch: ChunkBatch, key: NoiseKey,
                 config: DiffusionConfig, drops: DropConfig, orchestrator_learns: bool = True,
                 with_pointer: bool = True) -> JointLosses:
    """All losses of one batch whose conditions were perturbed already.

    Gradient reaches the orchestrator too where ``orchestrator_learns``. ``with_pointer`` False spares the pointer's
    own pass at t = 0: its loss is then 0 and its prediction where the chunk began.
    """
    clean = batch.target
    sigma = draw_sigma(key, config, clean.audio.device)
    eps = key.like(clean)
    noisy = noise_latents(clean, eps, sigma)
    target = eps.audio - clean.audio
    with torch.set_grad_enabled(torch.is_grad_enabled() and orchestrator_learns):
        prefix = orchestrator.prefix(batch.conditions)
        c_a = orchestrator.block(prefix, noisy.audio, sigma)
        head = audio_mean((orchestrator.velocity(c_a, noisy.audio) - target).square(), batch.audio_weight)
        if with_pointer:
            pointer = pointer_loss(orchestrator, prefix, batch)
        else:
            cursor = batch.conditions.cursor
            pointer = torch.zeros_like(cursor), cursor
    seen = denoiser.null_like(c_a, dropped_condition(key, drops, sigma.device))
    context = denoiser.encode_context(batch.conditions)
    v = denoiser(noisy, sigma, seen, context, batch.conditions.audio_time)
    return JointLosses(video_mean((v.video - (eps.video - clean.video)).square()),
                       audio_mean((v.audio - target).square(), batch.audio_weight), head, *pointer, sigma)
