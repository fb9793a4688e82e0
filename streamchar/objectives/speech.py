"""Orchestrator pretraining on speech alone: a light flow-matching head on c_a, and the pointer's loss (design 5, 6)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.flow import add_noise
from streamchar.diffusion.noise import NoiseKey
from streamchar.diffusion.schedule import training_sigmas
from streamchar.objectives.per_sample import audio_mean, batch_mean
from streamchar.orchestrator.model import Orchestrator, Prefix
from streamchar.transfer import sent
from streamchar.types import ChunkBatch

GOLDEN = 0.6180339887498949
SPARE = 2
"""By how many a part's samples for the pointer's loss exceed their share, at most but for very uneven parts."""


@dataclass
class SpeechLosses:
    """Flow-matching error and noise level of every draw, (D B,), the whole batch's first draws first; of the samples
    that the pointer's loss sees (:func:`pointer_samples`), its value and the predicted end in units, each (P,), to be
    averaged by :func:`pointer_mean`."""

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
    rows, due = pointer_samples(batch, share)
    part = prefix if rows is None else prefix.select(rows)
    predicted = orchestrator.point(part, chosen(batch.target.audio, rows))
    loss = F.smooth_l1_loss(predicted, chosen(batch.pointer, rows).float(), reduction="none", beta=0.25)
    return loss * (chosen(batch.conditions.has_text, rows) & due), predicted.detach()


def pointer_mean(loss: Tensor, batch: ChunkBatch, share: float = 1.0) -> Tensor:
    """Mean of the pointer's (P,) losses over the samples that were due, told or not: what micro-batches and ranks
    average by their sizes is then what one batch would give."""
    return loss.sum() / (share * len(batch))


def pointer_samples(batch: ChunkBatch, share: float) -> tuple[Tensor | None, Tensor]:
    """(P,) rows of the batch for the pointer's loss (None: all), and which of them are due. About ``share`` of any part
    of the global order, whoever holds it (multiples of the golden ratio are spread evenly, also over every second or
    fourth sample). Up to a number that hardly any part exceeds they are filled up with rows that are not due, since for
    every number of rows a compiled model has a graph of its own. The host chooses, by the samples' numbers alone: whose
    text is hidden is known to the device alone, and weighs 0."""
    device = batch.pointer.device
    if share >= 1:
        return None, torch.ones_like(batch.pointer, dtype=torch.bool)
    rows = (torch.frac(batch.index.double() * GOLDEN) < share).nonzero().flatten()
    number = max(len(rows), ceil(share * len(batch.index)) + SPARE)
    filled = torch.cat((rows, rows.new_zeros(number - len(rows))))
    return sent(filled, device), sent(torch.arange(number) < len(rows), device)


def chosen(x: Tensor, rows: Tensor | None) -> Tensor:
    """The rows of :func:`pointer_samples`."""
    return x if rows is None else x[rows]


def pointer_error(predicted: Tensor, batch: ChunkBatch, share: float = 1.0) -> Tensor:
    """Mean absolute error of (P,) predicted ends in units, over the samples that are due and told their text."""
    rows, due = pointer_samples(batch, share)
    return batch_mean((predicted - chosen(batch.pointer, rows)).abs(), chosen(batch.conditions.has_text, rows) & due)


def speech_losses(orchestrator: Orchestrator, batch: ChunkBatch, key: NoiseKey, config: DiffusionConfig,
                  pointer_share: float = 1.0, draws: int = 1) -> SpeechLosses:
    """Both losses of one batch; ``batch.conditions`` already carry the training noise on history.

    ``draws``: noise levels, and noises, of each sample; all of them share its prefix.
    """
    clean = batch.target.audio
    keys = [key.at(step=key.step + number) for number in range(draws)]
    sigma = torch.cat([draw_sigma(k, config, clean.device) for k in keys])
    eps = torch.cat([k.normal(clean.shape[1:], "audio", clean.device) for k in keys])
    wanted = clean.repeat(draws, 1, 1)
    noisy = add_noise(wanted, eps, sigma)
    prefix = orchestrator.prefix(batch.conditions)
    v = orchestrator.velocity(orchestrator.block(prefix.repeat(draws), noisy, sigma), noisy)
    flow = audio_mean((v - (eps - wanted)).square(), batch.audio_weight.repeat(draws, 1))
    return SpeechLosses(flow, *pointer_loss(orchestrator, prefix, batch, pointer_share), sigma)
