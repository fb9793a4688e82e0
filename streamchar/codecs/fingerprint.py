"""One name for a codec's whole behaviour: a hash of its kind, settings and weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def fingerprint(kind: str, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """sha256 (hex) over ``kind``, sorted ``settings`` and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps([kind, dict(settings)], sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
