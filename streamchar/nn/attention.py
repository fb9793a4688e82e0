"""Scaled dot-product attention without masks: FlashAttention where importable on CUDA, PyTorch SDPA otherwise.

Short sequences in bf16 on a CPU run through plain matrix products, whose backward there takes half of SDPA's time.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from streamchar.errors import InputError

log = logging.getLogger(__name__)

NAMES = {"flash3": "FlashAttention 3", "flash": "flash-attn", "cudnn": "cuDNN through PyTorch SDPA",
         "sdpa": "PyTorch SDPA", "plain": "plain matrix products (CPU, bf16)"}
HOPPER = (9, 0)
_asked: dict[str, str] = {}


def kernels(device_type: str) -> list[str]:
    """What can be used there in half precision, by preference."""
    if device_type != "cuda":
        return ["plain", "sdpa"]
    found = []
    if importlib.util.find_spec("flash_attn_interface") and torch.cuda.get_device_capability() >= HOPPER:
        found.append("flash3")
    if importlib.util.find_spec("flash_attn"):
        found.append("flash")
    return [*found, "sdpa", "cudnn"] if torch.backends.cudnn.is_available() else [*found, "sdpa"]


def use(device_type: str, name: str | None) -> None:
    """From now on half precision uses kernel ``name`` on that kind of device; None: the preferred one.

    Raises:
        InputError: where there is no such kernel.
    """
    if name is not None and name not in kernels(device_type):
        raise InputError(f"attention kernel {name!r} is not there on {device_type}: there are "
                         f"{', '.join(kernels(device_type))}")
    _asked.pop(device_type, None)
    if name is not None:
        _asked[device_type] = name
    _choose.cache_clear()


@torch.compiler.assume_constant_result
def backend(device_type: str, half: bool) -> str:
    """A key of :data:`NAMES`, chosen once per device type and precision; says which in one line."""
    return _choose(device_type, half)


@cache
def _choose(device_type: str, half: bool) -> str:
    name = _asked.get(device_type, kernels(device_type)[0]) if half else "sdpa"
    log.info("attention on %s: %s", device_type, NAMES[name])
    return name


def attend(q_BLHD: Tensor, k_BMHD: Tensor, v_BMHD: Tensor) -> Tensor:
    """Full attention of L queries over M keys: (B, L, H, D)."""
    kind = backend(q_BLHD.device.type, q_BLHD.dtype in (torch.float16, torch.bfloat16))
    if kind in ("flash", "flash3"):
        return _flash(kind, q_BLHD, k_BMHD, v_BMHD)
    q, k, v = q_BLHD.transpose(1, 2), k_BMHD.transpose(1, 2), v_BMHD.transpose(1, 2)
    if kind == "plain":
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2), dim=-1)
        return (weights @ v).transpose(1, 2)
    if kind == "cudnn":
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _flash(kind: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if kind == "flash3":
        from flash_attn_interface import flash_attn_func
    else:
        from flash_attn import flash_attn_func
    out = flash_attn_func(q, k, v)
    return out[0] if isinstance(out, tuple) else out  # some versions of FlashAttention 3 also give the log-sum
