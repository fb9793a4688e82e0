"""Noise levels: sigma in [0, 1], x_sigma = (1 - sigma) x + sigma eps (design, section 8)."""

from __future__ import annotations

import torch
from torch import Tensor

from streamchar.diffusion.config import DiffusionConfig


def warp(s: Tensor, shift: float) -> Tensor:
    """``k s / (1 + (k - 1) s)``: moves uniform levels towards noise for k > 1; fixes 0 and 1."""
    return shift * s / (1 + (shift - 1) * s)


def euler_sigmas(steps: int, shift: float, start: float = 1.0, stop: float = 0.0) -> Tensor:
    """(steps + 1,) levels from 1 to 0 for Euler; for a shorter way, ``start`` to ``stop``, proportionally fewer steps,
    at least 2."""
    first, last = (level / (shift - (shift - 1) * level) for level in (start, stop))  # the inverse of warp
    count = max(round(steps * (first - last)), min(steps, 2))
    return warp(torch.linspace(first, last, count + 1, dtype=torch.float64), shift).float()


def few_step_sigmas(config: DiffusionConfig) -> Tensor:
    """(n,) levels at which the student denoises: 1, .9375, .8333, .625 for the default steps."""
    return warp(torch.tensor(config.few_steps, dtype=torch.float64), config.few_step_shift).float()


def training_sigmas(uniform: Tensor, gauss: Tensor, config: DiffusionConfig) -> Tensor:
    """Noise levels for teacher training from (B,) uniform and (B, 2) normal draws, one per sample."""
    if not config.logit_normal:
        return warp(uniform, config.shift)
    levels = torch.sigmoid(gauss[:, 0] - 0.4)
    mixed = torch.where(torch.special.ndtr(gauss[:, 1]) < 0.15, uniform, levels)
    return warp(mixed, config.shift)


def score_sigmas(uniform: Tensor, config: DiffusionConfig) -> Tensor:
    """(B,) levels for distribution matching: uniform, warped, clamped to [.02, .98]."""
    return warp(uniform, config.score_shift).clamp(0.02, 0.98)
