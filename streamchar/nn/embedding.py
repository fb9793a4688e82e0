"""Embeddings of noise level and of spelled words."""

from __future__ import annotations

import math

import torch
import torch.nn as nn
from torch import Tensor


def sinusoid(t: Tensor, width: int, scale: float = 1000.0, max_period: float = 10000.0) -> Tensor:
    """(B,) noise levels in [0, 1] -> (B, width) cosines then sines, the Wan / DiT convention (t times 1000)."""
    half = width // 2
    rates = torch.exp(-math.log(max_period) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * scale * rates
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """Noise level to a vector: sinusoid, linear, SiLU, linear. (B,) -> (B, width)."""

    def __init__(self, time_dim: int, width: int) -> None:
        super().__init__()
        self.time_dim = time_dim
        self.linear_1 = nn.Linear(time_dim, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        hidden = nn.functional.silu(self.linear_1(sinusoid(t, self.time_dim)))
        return self.linear_2(hidden)


class SpelledEmbedding(nn.Module):
    """One vector per word from its spelling: an MLP over (character, position) one-hots (small_models, point 1).

    ids (B, N, W) -> (B, N, width); the sum of one-hots through the first layer is a table look-up per position.
    """

    def __init__(self, vocabulary: int, word_width: int, width: int) -> None:
        super().__init__()
        self.vocabulary, self.word_width = vocabulary, word_width
        self.table = nn.Embedding(vocabulary * word_width, width)
        nn.init.normal_(self.table.weight, std=0.5)
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, ids_BNW: Tensor) -> Tensor:
        offsets = torch.arange(self.word_width, device=ids_BNW.device) * self.vocabulary
        rows = self.table(ids_BNW + offsets)
        filled = (ids_BNW > 0).unsqueeze(-1).to(rows.dtype)
        return self.mlp((rows * filled).sum(dim=2))
