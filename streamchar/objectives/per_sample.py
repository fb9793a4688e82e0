"""Per-sample means: losses are returned per sample and reduced last, which gives loss per noise level for free."""

from __future__ import annotations

import torch
from torch import Tensor


def video_mean(x: Tensor) -> Tensor:
    """(B, C, T, h, w) -> (B,)."""
    return x.flatten(1).mean(dim=1)


def audio_mean(x: Tensor, weight: Tensor) -> Tensor:
    """(B, T, C) with weights (B, T), 0 for surplus latents -> (B,) mean over owned latents."""
    return (x.mean(dim=2) * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)


def batch_mean(x: Tensor, where: Tensor | None = None, share: Tensor | None = None) -> Tensor:
    """Mean of (B,) over the samples where ``where`` (B,) is True; 0 where there is none.

    ``share``: of True in the whole that ``x`` is a part of. What micro-batches and ranks average by their sizes is then
    the whole's mean, however many each of them has.
    """
    if where is None:
        return x.mean()
    kept = torch.where(where, x, torch.zeros_like(x))
    return kept.sum() / (where.sum().clamp_min(1) if share is None else (share * len(x)).clamp_min(1e-6))
