"""Which parts of a model are compiled: in place, so that names of parameters stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


def compiled_parts(model: nn.Module) -> Iterator[nn.Module]:
    """A denoiser's blocks. Of the LM the gated MLPs and norms, dozens of small kernels eager: its attention stays as it
    is, for it writes into a cache under a number that differs from layer to layer, and each would be compiled anew."""
    named = dict(model.named_children())
    if "llm" in named:
        for layer in named["llm"].get_submodule("layers").children():
            yield from (layer.get_submodule(name) for name in ("input_layernorm", "post_attention_layernorm", "mlp"))
    else:
        yield from named["blocks"].children()


def compile_parts(model: nn.Module, **options: Any) -> None:
    """Compile a denoiser or an orchestrator; ``options`` of :func:`torch.compile`."""
    for part in compiled_parts(model):
        part.compile(**options)
