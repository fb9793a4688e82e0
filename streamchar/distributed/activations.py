"""Trading arithmetic for memory: activations inside blocks that are computed again in the backward pass.

``recompute``: of a denoiser's block only inputs and outputs are kept. ``selective``: attention's outputs and every
second matrix product are kept too, so that about half of the arithmetic is done again, and none of attention's. In the
LM only the gated MLPs are recomputed: its attention writes into a cache, which must happen once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

MODES = ("keep", "selective", "recompute")
_aten = torch.ops.aten
_ATTENTION = {_aten._scaled_dot_product_flash_attention.default, _aten._scaled_dot_product_efficient_attention.default,
              _aten._scaled_dot_product_cudnn_attention.default,
              _aten._scaled_dot_product_flash_attention_for_cpu.default, _aten.bmm.default}
_PRODUCTS = {_aten.mm.default, _aten.addmm.default}


class _EverySecond:
    """Policy of one pass through a block; the backward pass asks in the same order as the forward pass did."""

    def __init__(self) -> None:
        self.seen = {False: 0, True: 0}

    def __call__(self, context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        if op in _ATTENTION:
            return CheckpointPolicy.MUST_SAVE
        if op in _PRODUCTS:
            self.seen[context.is_recompute] += 1
            if self.seen[context.is_recompute] % 2:
                return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE


def recomputed(model: nn.Module) -> Iterator[nn.Module]:
    """Parts of a model whose activations can be computed again."""
    named = dict(model.named_children())
    if "llm" in named:
        yield from (layer.get_submodule("mlp") for layer in named["llm"].get_submodule("layers").children())
    else:
        yield from named["blocks"].children()


def checkpoint_activations(model: nn.Module, mode: str) -> None:
    """Let a denoiser or an orchestrator recompute, in place; names of parameters and results stay as they are.

    Args:
        mode: one of :data:`MODES`.
    """
    if mode == "keep":
        return
    for part in recomputed(model):
        # Inside of ``forward``: hooks that gather sharded parameters run once and around it.
        part.forward = partial(_again, part.forward, mode)


def _again(forward: Callable[..., Any], mode: str, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    options: dict[str, Any] = {}
    if mode == "selective":
        options["context_fn"] = lambda: create_selective_checkpoint_contexts(_EverySecond())
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **options, **kwargs)
