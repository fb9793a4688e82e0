"""Frechet distance between two sets of feature vectors, usable with few samples.

``d^2 = |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))``. Below a few times D samples the plain covariance is
singular and the distance is dominated by noise; both covariances are therefore shrunk towards a multiple of the
identity by one common factor (the larger of the two oracle-approximating factors of Chen et al. 2010). Numbers are
comparable only between sets of equal size, which callers ensure.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamchar.errors import InputError


def shrinkage_factor(covariance: Tensor, samples: int) -> float:
    """Oracle-approximating shrinkage in [0, 1] for a (D, D) sample covariance of ``samples`` vectors."""
    d = covariance.shape[0]
    trace_sq, sq_trace = covariance.square().sum(), covariance.trace().square()
    spread = (samples + 1 - 2 / d) * (trace_sq - sq_trace / d)
    if spread <= 0:
        return 1.0
    return float((((1 - 2 / d) * trace_sq + sq_trace) / spread).clamp(0, 1))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / max(x.shape[0] - 1, 1)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance between Gaussians fitted to ``a`` (N, D) and ``b`` (M, D); 0 for equal sets.

    Raises:
        InputError: on shapes that do not match, fewer than 2 samples, or non-finite values.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise InputError(f"frechet_distance needs (N, D) and (M, D) with N, M >= 2, got {tuple(a.shape)} and "
                         f"{tuple(b.shape)}; pool or flatten the latents first")
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    if not (a.isfinite().all() and b.isfinite().all()):
        raise InputError("frechet_distance got non-finite features; look at the samples that made them")
    (mean_a, cov_a), (mean_b, cov_b) = _moments(a), _moments(b)
    rho = max(shrinkage_factor(cov_a, len(a)), shrinkage_factor(cov_b, len(b)))
    eye = torch.eye(a.shape[1], dtype=a.dtype) / a.shape[1]
    cov_a = (1 - rho) * cov_a + rho * cov_a.trace() * eye
    cov_b = (1 - rho) * cov_b + rho * cov_b.trace() * eye
    root_a = _root(cov_a)
    cross = torch.linalg.eigvalsh(root_a @ cov_b @ root_a).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def chunk_features(video: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
    """Small feature vectors of chunk latents for :func:`frechet_distance`.

    Video (B, C, T, h, w) -> (B, 4C): per channel mean and spread over the chunk, mean of the lower half (the mouth's)
    and mean absolute change over time. Audio (B, T, C) -> (B, 3C): mean, spread, mean absolute change.
    """
    v, s = video.detach().float(), audio.detach().float()
    lower = v[..., v.shape[-2] // 2:, :].mean((2, 3, 4))
    change = v.diff(dim=2).abs().mean((2, 3, 4)) if v.shape[2] > 1 else torch.zeros_like(lower)
    video_features = torch.cat([v.mean((2, 3, 4)), v.flatten(2).std(2), lower, change], 1)
    audio_features = torch.cat([s.mean(1), s.std(1), s.diff(dim=1).abs().mean(1)], 1)
    return video_features, audio_features
