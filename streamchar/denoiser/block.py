"""One block of the joint audio-video transformer: Wan's video block, with an FFN expert per modality (design, 4).

Shape suffixes: B batch, L tokens (video tokens first, then audio tokens), H heads, D width (or head width after H).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from streamchar.denoiser.config import DenoiserConfig
from streamchar.nn.attention import attend
from streamchar.nn.norm import RMSNorm
from streamchar.nn.rope import rotate

Rope = tuple[Tensor, Tensor]
KeyValue = tuple[Tensor, Tensor]


@dataclass
class Modulation:
    """(B or 1, 6, D) shared projection of t for this pass; every block adds its own table."""

    shared: Tensor


def layer_norm(x: Tensor) -> Tensor:
    """Layer norm without learned scale, eps 1e-6 (Wan)."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class SelfAttention(nn.Module):
    """Joint self-attention with shared QKV and RMS norm of queries and keys over the full width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(width, eps=1e-6), RMSNorm(width, eps=1e-6)

    def qkv(self, x_BLD: Tensor, rope: Rope) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values: three (B, L, H, D/H)."""
        q, k, v = self.norm_q(self.to_q(x_BLD)), self.norm_k(self.to_k(x_BLD)), self.to_v(x_BLD)
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (q, k, v))
        return rotate(q, *rope).to(v.dtype), rotate(k, *rope).to(v.dtype), v

    def forward(self, x_BLD: Tensor, rope: Rope, context: KeyValue | None) -> tuple[Tensor, KeyValue]:
        """Attend over ``context`` keys (if any) and own keys; returns output and own keys and values."""
        q, k, v = self.qkv(x_BLD, rope)
        own = (k, v)
        if context is not None:
            k, v = torch.cat((context[0], k), dim=1), torch.cat((context[1], v), dim=1)
        return self.to_out(attend(q, k, v).flatten(-2)), own


class CaptionAttention(nn.Module):
    """Cross-attention to caption states (Wan's second attention): queries (B, L, D), caption (B, M, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(width, eps=1e-6), RMSNorm(width, eps=1e-6)

    def forward(self, x_BLD: Tensor, caption_BMD: Tensor) -> Tensor:
        q, k, v = self.norm_q(self.to_q(x_BLD)), self.norm_k(self.to_k(caption_BMD)), self.to_v(caption_BMD)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).to(v.dtype) for y in (q, k, v))
        return self.to_out(attend(q, k, v).flatten(-2))


class Expert(nn.Module):
    """FFN of one modality: linear, tanh-GELU, linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class CaptionProjection(nn.Module):
    """Caption states to the model's width (Wan's text embedder): linear, tanh-GELU, linear."""

    def __init__(self, caption_dim: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(caption_dim, width), nn.Linear(width, width)

    def forward(self, caption: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(caption), approximate="tanh"))


class Block(nn.Module):
    """AdaLN self-attention, optional caption cross-attention (or its bias), and the FFN routed by modality."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.attn1 = SelfAttention(config.width, config.heads)
        self.attn2 = CaptionAttention(config.width, config.heads) if config.caption_dim else None
        self.norm2 = nn.LayerNorm(config.width, eps=1e-6) if config.caption_dim else None
        self.caption_bias = nn.Parameter(torch.zeros(config.width)) if config.caption_bias else None
        self.ffn_video = Expert(config.width, config.ffn)
        self.ffn_audio = Expert(config.width, config.audio_ffn)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, config.width) / config.width**0.5)

    def forward(self, x_BLD: Tensor, modulation: Modulation, rope: Rope, video_tokens: int,
                context: KeyValue | None = None, caption_BMD: Tensor | None = None) -> tuple[Tensor, KeyValue]:
        """One block over x (its first ``video_tokens`` tokens are video); returns x and its own keys/values."""
        table = (self.scale_shift_table + modulation.shared).to(x_BLD.dtype)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table.chunk(6, dim=1)
        attended, own = self.attn1(layer_norm(x_BLD) * (1 + scale) + shift, rope, context)
        x_BLD = x_BLD + gate * attended
        if self.attn2 is not None and self.norm2 is not None and caption_BMD is not None:
            x_BLD = x_BLD + self.attn2(self.norm2(x_BLD), caption_BMD)
        if self.caption_bias is not None:
            x_BLD = x_BLD + self.caption_bias.to(x_BLD.dtype)
        h = layer_norm(x_BLD) * (1 + ffn_scale) + ffn_shift
        routed = torch.cat((self.ffn_video(h[:, :video_tokens]), self.ffn_audio(h[:, video_tokens:])), dim=1)
        return (x_BLD + ffn_gate * routed).to(x_BLD.dtype), own
