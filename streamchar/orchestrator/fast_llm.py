"""The LM's layers in few kernels, for models that only speak: a block of 35 latents is bound by launches otherwise.

One matrix product for queries, keys and values, one for the MLP's gate and input; queries of a group stand one after
another over the keys that they share, which are not repeated; half precision throughout except for the residual, norms
and rotation. What lies between attention and attention is two functions of tensors, the same for all layers, so that
each is compiled once per shape.

Shape suffixes: B batch, T new tokens, M all tokens, D width, N key heads, G queries per key head, H head width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2Model

Pair = tuple[Tensor, Tensor]
ALIGNED = 8
"""SDPA copies masks whose rows do not begin at multiples of so many elements, in every layer."""


class Layer(NamedTuple):
    """The weights of one layer."""

    norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    ffn_norm: Tensor
    gate_up: Tensor
    down: Tensor


def before(x_BTD: Tensor, layer: Layer, cos_BTH: Tensor, sin_BTH: Tensor, heads: int, eps: float) -> tuple[
        Tensor, Tensor, Tensor]:
    """Rotated queries (B, N, G T, H) and keys, and values: (B, N, T, H)."""
    b, width = x_BTD.shape[0], cos_BTH.shape[-1]
    qkv = F.linear(_norm(x_BTD, layer.norm, eps).to(layer.qkv.dtype), layer.qkv, layer.qkv_bias)
    q, k, v = qkv.unflatten(-1, (-1, width)).split([qkv.shape[-1] // width - 2 * heads, heads, heads], dim=2)
    cos, sin = cos_BTH[:, :, None], sin_BTH[:, :, None]
    q, k = (_rotate(y.float(), cos, sin).to(v.dtype) for y in (q, k))
    q = q.unflatten(2, (heads, -1)).permute(0, 2, 3, 1, 4).reshape(b, heads, -1, width)
    return q.contiguous(), k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()


def after(x_BTD: Tensor, attended: Tensor, layer: Layer, eps: float) -> Tensor:
    """The rest of the layer, from what attention gave (B, N, G T, H)."""
    b, t, _ = x_BTD.shape
    heard = attended.unflatten(2, (-1, t)).permute(0, 3, 1, 2, 4).reshape(b, t, -1)
    x_BTD = x_BTD + F.linear(heard, layer.out)
    gate, up = F.linear(_norm(x_BTD, layer.ffn_norm, eps).to(layer.gate_up.dtype), layer.gate_up).chunk(2, dim=-1)
    return x_BTD + F.linear(F.silu(gate) * up, layer.down)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    x = x.float()
    return weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Halves of the head are the pairs, as Qwen2 has them."""
    one, two = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-two, one), dim=-1) * sin


class FastLlm:
    """A Qwen2 model's layers over embeddings. Its linear layers' weights become parts of joined ones, in place.

    Args:
        llm: without gradients, in the precision that it is to compute in.
        compiled: compile what lies between attentions; shapes are taken as fixed.
    """

    def __init__(self, llm: Qwen2Model, compiled: bool = True) -> None:
        self.llm = llm
        self.heads, self.eps = int(llm.config.num_key_value_heads), float(llm.config.rms_norm_eps)  # type: ignore
        self.layers = [_joined(layer) for layer in llm.layers]
        self._before = torch.compile(before, dynamic=False) if compiled else before
        self._after = torch.compile(after, dynamic=False) if compiled else after

    @staticmethod
    def fits(llm: Any) -> bool:
        """Whether ``llm`` is what this is written for: Qwen2's layers, all of them attending to everything."""
        return all(type(layer).__name__ == "Qwen2DecoderLayer" and layer.self_attn.sliding_window is None
                   and all(type(m) is nn.Linear for m in linears(layer)) for layer in llm.layers)

    def __call__(self, x: Tensor, mask: Tensor, positions: Tensor, past: list[Pair] | None = None) -> tuple[
            Tensor, list[Pair]]:
        """Final states (B, T, D), and own keys and values per layer. mask: (B, 1, T, M), added; past: keys before x."""
        own = []
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            cos, sin = self.llm.rotary_emb(x, positions)
            mask = self._folded(mask)
            for i, layer in enumerate(self.layers):
                q, k, v = self._before(x, layer, cos, sin, self.heads, self.eps)
                own.append((k, v))
                if past is not None:
                    k, v = torch.cat((past[i][0], k), dim=2), torch.cat((past[i][1], v), dim=2)
                attended = F.scaled_dot_product_attention(q, k, v, mask, scale=q.shape[-1] ** -0.5)
                x = self._after(x, attended, layer, self.eps)
            return self.llm.norm(x), own

    def _folded(self, mask: Tensor) -> Tensor:
        """(B, 1, T, M) -> (B, 1, G T, M) in the layers' precision, rows aligned."""
        groups = int(self.llm.config.num_attention_heads) // self.heads
        kind = self.layers[0].qkv.dtype
        keys = mask.shape[-1]
        mask = mask.clamp_min(torch.finfo(kind).min).to(kind).repeat(1, 1, groups, 1)
        return F.pad(mask, (0, -keys % ALIGNED))[..., :keys]


def linears(layer: Any) -> list[nn.Linear]:
    """Those of a Qwen2 layer: q, k, v, out, gate, up, down."""
    a, m = layer.self_attn, layer.mlp
    return [a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj]


def _joined(layer: Any) -> Layer:
    q, k, v, out, gate, up, down = linears(layer)
    return Layer(layer.input_layernorm.weight.detach(), _join("weight", q, k, v), _join("bias", q, k, v),
                 out.weight.detach(), layer.post_attention_layernorm.weight.detach(), _join("weight", gate, up),
                 down.weight.detach())


def _join(name: str, *linears: nn.Linear) -> Tensor:
    """One tensor of all their weights or biases, of which theirs become parts: nothing is held twice."""
    parts = [getattr(linear, name) for linear in linears]
    whole = torch.cat([p.detach() for p in parts])
    for parameter, part in zip(parts, whole.split([len(p) for p in parts]), strict=True):
        parameter.data = part
    return whole
