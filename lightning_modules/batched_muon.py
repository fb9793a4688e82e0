"""Muon with matrices of one shape in one product, in float32 where bfloat16 has no kernels.

torch's own takes the matrices one by one, in hundreds of small products: of a small model's step a tenth on a CPU where
bfloat16 is fast, more than the model's own where it is not, and hundreds of launches on a GPU.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from streamchar.nn.bfloat16 import fast_bfloat16

TOGETHER = 1 << 25
"""Most weights in one product: beyond it matrices are large enough to be taken one by one, and copies cost memory."""


def orthogonalised(matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float,
                   dtype: torch.dtype) -> Tensor:
    """The nearest matrices (..., rows, columns) with singular values around 1, by Newton-Schulz steps (Jordan et al.
    2024) computed in ``dtype``."""
    a, b, c = coefficients
    x = matrices.to(dtype)
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp(min=eps)
    if tall := x.shape[-2] > x.shape[-1]:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = (b * gram + c * gram @ gram) @ x + a * x
    return x.mT if tall else x


class BatchedMuon(torch.optim.Muon):
    """``torch.optim.Muon`` (Nesterov, ``adjust_lr_fn="original"``) with the same options and the same state."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    # Of what is shared out over ranks each matrix is taken alone.
                    alike[id(p) if isinstance(p, DTensor) else p.shape].append(p)
            for parameters in alike.values():
                for part in _parts(parameters):
                    self._update(part, group)
        return loss

    def _update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        momentum, shape = group["momentum"], parameters[0].shape
        wanted = []
        for p in parameters:
            assert p.grad is not None, "only what has a gradient is moved"
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
            buffer = self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - momentum)
            wanted.append(p.grad.lerp(buffer, momentum))
        dtype = torch.bfloat16 if fast_bfloat16(parameters[0].device) else torch.float32
        options = group["ns_coefficients"], group["ns_steps"], group["eps"], dtype
        updates = ([orthogonalised(wanted[0], *options)] if len(wanted) == 1
                   else orthogonalised(torch.stack(wanted), *options).unbind())
        for p, update in zip(parameters, updates, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update, alpha=-group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5)


def _parts(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """As many of them together as hold :data:`TOGETHER` weights, and one at least."""
    size = max(1, TOGETHER // max(1, parameters[0].numel()))
    for start in range(0, len(parameters), size):
        yield parameters[start:start + size]
