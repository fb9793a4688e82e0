"""RMS norm that stays one kernel under autocast."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """``nn.RMSNorm`` with its weight in the input's type at the call, as a linear layer's is under autocast.

    Of two types torch computes it in several kernels, with float32 copies of queries and keys between them. Gradient
    flows to the float32 weight; with an input of float32 nothing changes.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        return F.rms_norm(x, self.normalized_shape, None if weight is None else weight.to(x.dtype), self.eps)
