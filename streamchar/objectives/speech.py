"""Orchestrator pretraining on speech alone: a light flow-matching head on c_a, and the pointer's loss (design 5, 6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.flow import add_noise
from streamchar.diffusion.noise import NoiseKey
from streamchar.diffusion.schedule import training_sigmas
from streamchar.objectives.per_sample import audio_mean
from streamchar.orchestrator.model import Orchestrator, Prefix
from streamchar.types import ChunkBatch

GOLDEN = 0.6180339887498949


@dataclass
class SpeechLosses:
    """Per sample: flow-matching error (B,) and noise level (B,); of the samples that the pointer's loss sees
    (:func:`pointer_samples`), its value and the predicted end in units, each (P,), to be averaged by
    :func:`pointer_mean`."""

    flow: Tensor
    pointer: Tensor
    predicted: Tensor
    sigma: Tensor


def draw_sigma(key: NoiseKey, config: DiffusionConfig, device: torch.device) -> Tensor:
    """(B,) noise levels of a training step."""
    return training_sigmas(key.uniform((), "t", device), key.normal((2,), "t", device), config)


def pointer_loss(orchestrator: Orchestrator, prefix: Prefix, batch: ChunkBatch, share: float = 1.0
                 ) -> tuple[Tensor, Tensor]:
    """SmoothL1 between the predicted and the true end position (0 where the text is hidden), and the prediction; a
    t = 0 pass only.

    ``share`` of the samples are seen, and (P,) values returned: those whose place in the global order says so, so that
    ranks and micro-batches see the same ones together as one process does.
    """
    seen = pointer_samples(batch, share)
    predicted = orchestrator.point(prefix.select(seen), batch.target.audio[seen])
    loss = F.smooth_l1_loss(predicted, batch.pointer[seen].float(), reduction="none", beta=0.25)
    return loss * batch.conditions.has_text[seen], predicted.detach()


def pointer_mean(loss: Tensor, batch: ChunkBatch, share: float = 1.0) -> Tensor:
    """Mean of the pointer's (P,) losses over the samples that were due, told or not: what micro-batches and ranks
    average by their sizes is then what one batch would give."""
    return loss.sum() / (share * len(batch))


def pointer_samples(batch: ChunkBatch, share: float) -> Tensor:
    """(P,) rows of the batch for the pointer's loss, at least one: about ``share`` of any part of the global order,
    whoever holds it (multiples of the golden ratio are spread evenly, also over every second or fourth sample). Where
    the text is hidden there is nothing to point at."""
    chosen = torch.frac(batch.index.double() * GOLDEN) < share
    rows = (chosen & batch.conditions.has_text).nonzero().flatten()
    return rows if len(rows) else rows.new_zeros(1)


def speech_losses(orchestrator: Orchestrator, batch: ChunkBatch, key: NoiseKey, config: DiffusionConfig,
                  pointer_share: float = 1.0) -> SpeechLosses:
    """Both losses of one batch; ``batch.conditions`` already carry the training noise on history."""
    clean = batch.target.audio
    sigma = draw_sigma(key, config, clean.device)
    eps = key.normal(clean.shape[1:], "audio", clean.device)
    noisy = add_noise(clean, eps, sigma)
    prefix = orchestrator.prefix(batch.conditions)
    v = orchestrator.velocity(orchestrator.block(prefix, noisy, sigma), noisy)
    flow = audio_mean((v - (eps - clean)).square(), batch.audio_weight)
    return SpeechLosses(flow, *pointer_loss(orchestrator, prefix, batch, pointer_share), sigma)
