"""The LM's layers while they learn, each compiled as a whole: of an eager step of a small LM on a CPU half goes into
norms, rotations, copies and sums between its matrix products, each of which is a launch on a GPU.

The same functions as :mod:`streamchar.orchestrator.fast_llm`, from weights that change: joined anew in every pass, so
that gradients reach the model's own parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Qwen2Model

from streamchar.orchestrator.fast_llm import FastLlm, Layer, Pair, after, before, linears


def whole_layer(x: Tensor, layer: Layer, cos: Tensor, sin: Tensor, mask: Tensor, past: Pair | None, heads: int,
                eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """One layer: its output (B, T, D), and its own keys and values (B, N, T, H)."""
    q, k, v = before(x, layer, cos, sin, heads, eps)
    keys, values = (k, v) if past is None else (torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2))
    weights = torch.softmax((q * q.shape[-1] ** -0.5) @ keys.transpose(-1, -2) + mask, dim=-1)
    return after(x, weights @ values, layer, eps), k, v


class LearningLlm:
    """A Qwen2 model's layers over embeddings, for passes with gradients.

    Args:
        llm: whose weights lie whole in this process.
        options: of :func:`torch.compile`; one graph is made for each number of new tokens, past ones and samples, and
            after eight of them (dynamo's limit) further ones are run eagerly.
    """

    def __init__(self, llm: Qwen2Model, **options: object) -> None:
        assert FastLlm.fits(llm), "Qwen2's layers, all of them attending to everything"
        self.llm = llm
        self.heads, self.eps = int(llm.config.num_key_value_heads), float(llm.config.rms_norm_eps)  # type: ignore
        self.groups = int(llm.config.num_attention_heads) // self.heads
        self._layer = torch.compile(whole_layer, **{"dynamic": False, **options})  # type: ignore

    def __call__(self, x: Tensor, mask: Tensor, positions: Tensor, past: list[Pair] | None = None) -> tuple[
            Tensor, list[Pair]]:
        """Final states (B, T, D), and own keys and values per layer. mask: (B, 1, T, M), added, in the precision of the
        matrix products; past: keys before x."""
        own = []
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            cos, sin = self.llm.rotary_emb(x, positions)
            folded = mask.repeat(1, 1, self.groups, 1)
            for i, layer in enumerate(self.llm.layers):
                x, k, v = self._layer(x, _live(layer, mask.dtype), cos, sin, folded, past and past[i], self.heads,
                                      self.eps)
                own.append((k, v))
            return self.llm.norm(x), own


def _live(layer: object, kind: torch.dtype) -> Layer:
    """The layer's weights in the precision ``kind``, with a way back for gradients."""
    q, k, v, out, gate, up, down = linears(layer)
    bias = torch.cat([part.bias for part in (q, k, v)])
    joined = (torch.cat([part.weight for part in parts]).to(kind) for parts in ((q, k, v), (gate, up)))
    qkv, gate_up = joined
    return Layer(layer.input_layernorm.weight, qkv, bias.to(kind), out.weight.to(kind),  # type: ignore
                 layer.post_attention_layernorm.weight, gate_up, down.weight.to(kind))  # type: ignore
