"""Flow matching on a straight line between data x and noise eps (design, sections 2 and 8). All shapes broadcast."""

from __future__ import annotations

from torch import Tensor

from streamchar.types import Latents


def _like(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def add_noise(x: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """``(1 - sigma) x + sigma eps`` for sigma (B,)."""
    s = _like(sigma, x)
    return (1 - s) * x + s * eps


def clean_from_velocity(x_sigma: Tensor, v: Tensor, sigma: Tensor) -> Tensor:
    """``x0 = x_sigma - sigma v``."""
    return x_sigma - _like(sigma, x_sigma) * v


def noise_latents(x: Latents, eps: Latents, sigma: Tensor) -> Latents:
    """Both modalities at the one noise level of each sample."""
    return Latents(add_noise(x.video, eps.video, sigma), add_noise(x.audio, eps.audio, sigma))


def clean_latents(x: Latents, v: Latents, sigma: Tensor) -> Latents:
    """Both modalities' clean estimate."""
    return Latents(clean_from_velocity(x.video, v.video, sigma), clean_from_velocity(x.audio, v.audio, sigma))
