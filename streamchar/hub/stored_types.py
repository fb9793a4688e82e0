"""How an exported model's weights lie in its file: as they are, in half precision, or as eight-bit integers."""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = ("float32", "bfloat16", "float16", "int8")
_SCALE = ".int8_scale"


def stored(weights: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """``weights`` as they are written; integers stay as they are.

    int8: each row (first dimension) of a matrix is w = n s with n in -127..127 and one float32 s, so that no weight is
    further off than 1/254 of its row's largest; vectors are float16, which is a hundredth of the whole.
    """
    found = {}
    for name, value in weights.items():
        value = value.detach().cpu()
        if not value.is_floating_point():
            found[name] = value.contiguous()
        elif kind != "int8":
            found[name] = value.to(getattr(torch, kind)).contiguous()
        elif value.ndim < 2:
            found[name] = value.to(torch.float16).contiguous()
        else:
            scale = value.float().abs().flatten(1).amax(dim=1).clamp_min(1e-12) / 127
            rows = scale.view(-1, *[1] * (value.ndim - 1))
            found[name] = (value.float() / rows).round().to(torch.int8).contiguous()
            found[name + _SCALE] = scale
    return found


def restored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of :func:`stored` by their own names; eight-bit ones as float32."""
    found = {name: value for name, value in tensors.items() if not name.endswith(_SCALE)}
    for name, scale in tensors.items():
        if name.endswith(_SCALE):
            own = name.removesuffix(_SCALE)
            found[own] = found[own].float() * scale.view(-1, *[1] * (found[own].ndim - 1))
    return found
