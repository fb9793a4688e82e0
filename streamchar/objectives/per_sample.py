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


def batch_mean(x: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean of (B,) over the samples where ``where`` (B,) is True; 0 where there is none."""
    if where is None:
        return x.mean()
    kept = torch.where(where, x, torch.zeros_like(x))
    return kept.sum() / where.sum().clamp_min(1)
