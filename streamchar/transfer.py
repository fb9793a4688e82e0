"""From the host to the device without making the host wait for it."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor`` on ``device``. From the host it goes through pinned memory: out of any other, a copy would wait until
    the device has done all that was asked of it before."""
    device = torch.device(device)
    if tensor.numel() and tensor.device.type == "cpu" and device.type != "cpu":
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)  # an expanded one cannot be pinned
    return tensor.to(device)
