"""The tiny image autoencoder TAEF2 (madebyollin/taesd, MIT): stride 8, 32 latent channels, its layers as published.

Module numbers are those of the published state dicts, so the published files load as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 64
LATENT = 32


class Bound(nn.Module):
    """Keeps latents within +-3, softly."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    """Three convolutions beside the identity; with ``pool`` a normalised 1x1 mixing goes first."""

    def __init__(self, pool: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        self.pool = nn.Sequential(nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False), nn.GroupNorm(4, 4 * WIDTH), nn.ReLU(),
                                  nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False)) if pool else None

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return torch.relu(self.conv(x) + x)


def tae_encoder() -> nn.Sequential:
    """(B, 3, H, W) in [0, 1] -> (B, 32, H/8, W/8)."""
    stages: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), Block()]
    for stage in range(3):
        down = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, stride=2, bias=False)
        stages += [down, *(Block(pool=stage == 2) for _ in range(3))]
    return nn.Sequential(*stages, nn.Conv2d(WIDTH, LATENT, 3, padding=1))


def tae_decoder() -> nn.Sequential:
    """(B, 32, h, w) -> (B, 3, 8 h, 8 w), about [0, 1]."""
    stages: list[nn.Module] = [Bound(), nn.Conv2d(LATENT, WIDTH, 3, padding=1), nn.ReLU()]
    for stage in range(3):
        stages += [*(Block(pool=stage == 0) for _ in range(3)), nn.Upsample(scale_factor=2), _conv(bias=False)]
    return nn.Sequential(*stages, Block(), nn.Conv2d(WIDTH, 3, 3, padding=1))


def _conv(bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=bias)
