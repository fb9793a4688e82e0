"""Scaled dot-product attention without masks: flash-attn where importable on CUDA, PyTorch SDPA otherwise.

Short sequences in bf16 on a CPU run through plain matrix products, whose backward there takes half of SDPA's time.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

log = logging.getLogger(__name__)

NAMES = {"flash": "flash-attn", "sdpa": "PyTorch SDPA", "plain": "plain matrix products (CPU, bf16)"}


@cache
def backend(device_type: str, half: bool) -> str:
    """``flash``, ``sdpa`` or ``plain``, chosen once per device type and precision; says which in one line."""
    name = "sdpa"
    if device_type == "cuda" and half and importlib.util.find_spec("flash_attn"):
        name = "flash"
    elif device_type == "cpu" and half:
        name = "plain"
    log.info("attention on %s: %s", device_type, NAMES[name])
    return name


def attend(q_BLHD: Tensor, k_BMHD: Tensor, v_BMHD: Tensor) -> Tensor:
    """Full attention of L queries over M keys: (B, L, H, D)."""
    kind = backend(q_BLHD.device.type, q_BLHD.dtype in (torch.float16, torch.bfloat16))
    if kind == "flash":
        from flash_attn import flash_attn_func

        return flash_attn_func(q_BLHD, k_BMHD, v_BMHD)
    q, k, v = q_BLHD.transpose(1, 2), k_BMHD.transpose(1, 2), v_BMHD.transpose(1, 2)
    if kind == "plain":
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1)
        return (weights @ v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
