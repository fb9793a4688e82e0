"""The LM's attention with an additive mask, as transformers calls it; the kernel is chosen as for the denoiser."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from streamchar.nn.attention import backend

NAME = "streamchar"


def masked_attention(module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                     scaling: float | None = None, dropout: float = 0.0, **_: Any) -> tuple[Tensor, None]:
    """(B, H, L, D) queries over (B, H / groups, M, D) keys with an additive mask (B, 1, L, M) -> (B, L, H, D).

    Short sequences in bf16 on a CPU go through plain matrix products: SDPA's backward with a mask takes longer there
    than all other work of a small LM.
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # rotary tables in float32 make float32 queries of half ones; autocast halves them again in the products
    half = torch.is_autocast_enabled(query.device.type) or query.dtype in (torch.float16, torch.bfloat16)
    if backend(query.device.type, half) == "plain" and attention_mask is not None:
        weights = torch.softmax((query * scale) @ key.transpose(-1, -2) + attention_mask, dim=-1)
        out = weights @ value
    else:
        out = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scale)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, masked_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
