"""Rotary position embedding over (time, height, width) with real-valued positions, split over axes as Wan does it.

Shape suffixes: B batch, L tokens, H heads, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def axis_widths(head_dim: int) -> tuple[int, int, int]:
    """Width of the time, height and width axes: height and width get ``2 (d // 6)`` each, time the rest."""
    space = 2 * (head_dim // 6)
    return head_dim - 2 * space, space, space


def rope_angles(positions: Tensor, head_dim: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables for positions (..., L, 3) -> two (..., L, 1, head_dim / 2) float32."""
    angles = []
    for axis, width in enumerate(axis_widths(head_dim)):
        rates = theta ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.float64) / max(width, 1))
        angles.append(positions[..., axis, None].double() * rates)
    table = torch.cat(angles, dim=-1).unsqueeze(-2)
    return table.cos().float(), table.sin().float()


def rotate(x_BLHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbouring pairs of channels; keeps dtype."""
    even, odd = x_BLHD[..., 0::2], x_BLHD[..., 1::2]
    cos, sin = cos.to(x_BLHD.dtype), sin.to(x_BLHD.dtype)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
