"""Whether a device multiplies bfloat16 matrices faster than float32 ones."""

from __future__ import annotations

import torch


def fast_bfloat16(device: torch.device | str) -> bool:
    """False on CPUs whose products of bfloat16 have no oneDNN kernel: they run at an eighth of float32's speed."""
    return torch.device(device).type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
