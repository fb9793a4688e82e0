"""Muon whose products are in float32, for CPUs without bfloat16 kernels: there torch's own cost more than the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """The nearest matrix with singular values around 1, by Newton-Schulz steps (Jordan et al. 2024), in float32."""
    a, b, c = coefficients
    x = matrix.float()
    x = x / x.norm().clamp(min=eps)
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Float32Muon(torch.optim.Muon):
    """``torch.optim.Muon`` (Nesterov, ``adjust_lr_fn="original"``) with the same options and the same state."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        if "momentum_buffer" not in self.state[p]:
            self.state[p]["momentum_buffer"] = torch.zeros_like(grad)
        momentum, buffer = group["momentum"], self.state[p]["momentum_buffer"]
        buffer.lerp_(grad, 1 - momentum)
        update = orthogonalised(grad.lerp(buffer, momentum), group["ns_coefficients"], group["ns_steps"], group["eps"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
