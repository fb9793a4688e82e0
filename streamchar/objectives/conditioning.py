"""What training does to the conditions: independent drops, and noise on history and motion (design, section 4)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from streamchar.diffusion.noise import NoiseKey
from streamchar.objectives.drops import DropConfig
from streamchar.types import Conditions


def _noisy(x: Tensor, key: NoiseKey, name: str, level: float) -> Tensor:
    if level <= 0 or not x.numel():
        return x
    sigma = level * key.uniform((), name + "level", x.device).reshape(-1, *[1] * (x.ndim - 1))
    return x + sigma * key.normal(x.shape[1:], name, x.device)


def perturb(conditions: Conditions, key: NoiseKey, drops: DropConfig) -> Conditions:
    """Conditions with groups dropped and noise added, each by its own counted draw; words are never changed."""
    device = conditions.ref.device
    draw = key.uniform((4,), "drops", device)
    keep_motion = draw[:, 1] >= drops.motion
    return replace(
        conditions,
        has_ref=conditions.has_ref & (draw[:, 0] >= drops.ref),
        has_motion=conditions.has_motion & keep_motion,
        has_past=conditions.has_past & keep_motion,
        has_sink=conditions.has_sink & (draw[:, 2] >= drops.sink),
        has_text=conditions.has_text & (key.uniform((), "text", device) >= drops.text),
        motion=_noisy(conditions.motion, key, "motion", drops.motion_noise),
        past_audio=_noisy(conditions.past_audio, key, "past", drops.motion_noise),
        history=_noisy(conditions.history, key, "history", drops.history_noise))


def dropped_condition(key: NoiseKey, drops: DropConfig, device: torch.device) -> Tensor:
    """(B,) bool: the samples whose c_a becomes the null vector."""
    return key.uniform((4,), "drops", device)[:, 3] < drops.condition
