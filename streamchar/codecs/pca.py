"""Principal components from a stream of samples: double precision, deterministic signs, divisors for the channels.

Legend: N samples, D dimensions, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from streamchar.errors import DataError


@dataclass
class Components:
    """``mean`` (D,), ``basis`` (C, D) orthonormal rows, ``sigma`` (C,) standard deviations, strongest first."""

    mean: Tensor
    basis: Tensor
    sigma: Tensor

    def scale(self, floor: float, whiten: float) -> Tensor:
        """(C,) divisors that give the channels a mean variance of 1.

        They are proportional to ``max(sigma, floor * strongest sigma) ** whiten``. At 1 every channel above the floor
        has variance 1. At 0.5 strong channels keep more than weak ones: of all divisors these give the smallest error
        after decoding when noise of one size is on all channels. At 0 all keep their natural proportions.
        """
        strongest = self.sigma[0].clamp(min=1e-6)
        divisor = self.sigma.clamp(min=float(floor * strongest)) ** whiten
        used = self.sigma > 1e-3 * strongest  # channels that the data does not use have no say in the mean
        return divisor * (self.sigma / divisor)[used].square().mean().sqrt() if used.any() else divisor


class Moments:
    """Running count, mean and covariance of samples (N, D), in float64."""

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self.total = torch.zeros(dimensions, dtype=torch.float64)
        self.outer = torch.zeros(dimensions, dimensions, dtype=torch.float64)

    def add(self, samples: Tensor) -> None:
        """Take samples (N, D) in."""
        x_ND = samples.double()
        self.count += len(x_ND)
        self.total += x_ND.sum(0)
        self.outer += x_ND.T @ x_ND

    def centred(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D).

        Raises:
            DataError: if fewer than two samples came or some are not finite.
        """
        if self.count < 2:
            raise DataError(f"a codec cannot be fitted on {self.count} samples; give it at least one clip")
        mean = self.total / self.count
        covariance = self.outer / self.count - torch.outer(mean, mean)
        if not torch.isfinite(covariance).all():
            raise DataError("the clips given to fit a codec hold NaN or infinite values; check the shards")
        return mean, covariance

    def components(self, channels: int) -> Components:
        """The ``channels`` strongest components; each row's largest entry is positive.

        Raises:
            DataError: as :meth:`centred`.
        """
        mean, covariance = self.centred()
        variance, vectors = torch.linalg.eigh(covariance)
        order = variance.argsort(descending=True)[:channels]
        basis = vectors[:, order].T
        peak = basis.abs().argmax(1, keepdim=True)
        basis = basis * basis.gather(1, peak).sign()
        return Components(mean.float(), basis.float().contiguous(), variance[order].clamp(min=0).sqrt().float())


class LinearCode(nn.Module):
    """Vectors (..., D) to channels (..., C) of a mean variance of 1 and back: mean removed, projected, divided."""

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, dimensions: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimensions))
        self.register_buffer("basis", torch.zeros(channels, dimensions))
        self.register_buffer("scale", torch.ones(channels))

    def store(self, found: Components, floor: float, whiten: float) -> None:
        """Take fitted components over (see :meth:`Components.scale`); channels beyond theirs stay zero."""
        count = len(found.sigma)
        self.mean.copy_(found.mean)
        self.basis.zero_()[:count] = found.basis
        self.scale.fill_(1.0)[:count] = found.scale(floor, whiten)

    def forward(self, vectors: Tensor) -> Tensor:
        """(..., D) -> (..., C)."""
        return (vectors - self.mean) @ (self.basis / self.scale[:, None]).T

    def inverse(self, channels: Tensor) -> Tensor:
        """(..., C) -> (..., D)."""
        return channels @ (self.basis * self.scale[:, None]) + self.mean
