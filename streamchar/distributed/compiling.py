"""Which parts of a model are compiled: in place, so that names of parameters stay as they are."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from streamchar.orchestrator.model import Orchestrator

log = logging.getLogger(__name__)

SMALL = 512
"""Widest LM that is compiled in whole layers; measured at 256 and 384."""


def compiled_parts(model: nn.Module) -> Iterator[nn.Module]:
    """A denoiser's blocks. Of the LM the gated MLPs and norms, dozens of small kernels eager: its attention stays as it
    is, for it writes into a cache under a number that differs from layer to layer, and each would be compiled anew."""
    named = dict(model.named_children())
    if "llm" in named:
        for layer in named["llm"].get_submodule("layers").children():
            yield from (layer.get_submodule(name) for name in ("input_layernorm", "post_attention_layernorm", "mlp"))
    else:
        yield from named["blocks"].children()


def can_compile(device_type: str) -> bool:
    """Whether :func:`torch.compile` works here; a line says so where it does not. On a CPU it needs a C++ compiler,
    which is tried on one small function; on a GPU Triton and a C compiler, which are looked for."""
    failure = _failure_on_cpu() if device_type == "cpu" else _missing_on_gpu()
    if failure is not None:
        log.warning("nothing is compiled, steps take longer: torch.compile does not work here (%s)", failure)
    return failure is None


def _failure_on_cpu() -> str | None:
    from torch._inductor import config as inductor  # which takes a second to import

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # which misses CUDA, without need
    # Kernels are made for a number of threads, which the name they are kept under must tell: those of another number
    # would start and end threads at each call.
    inductor.cpp.threads = torch.get_num_threads()
    try:
        torch.compile(_tried)(torch.ones(8))
    except Exception as error:  # of many kinds, from dynamo to the compiler that is not there
        told = str(error).strip() or type(error).__name__
        return f"{told.splitlines()[0]}; it needs g++ and Python's headers"
    return None


def _missing_on_gpu() -> str | None:
    """Looked for, not tried: a rank does not know its GPU yet, and a trial would take memory of the first one."""
    if find_spec("triton") is None:
        return "there is no Triton: pip install triton"
    if not os.environ.get("CC") and shutil.which("gcc") is None and shutil.which("clang") is None:
        return "Triton needs a C compiler: install gcc or set CC"
    return None


def _tried(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1


def compile_parts(model: nn.Module, whole_lm: bool = False, **options: Any) -> None:
    """Compile a denoiser or an orchestrator; ``options`` of :func:`torch.compile`.

    ``whole_lm``: an orchestrator's layers whole, by functions of their weights. That is for weights that lie whole in
    this process, and activations that are all kept; it spares a third of a small LM's step on a CPU, on a GPU,
    with Muon by shapes, half. LMs wider than :data:`SMALL` need attention that keeps no weights.
    """
    if whole_lm and isinstance(model, Orchestrator) and _is_small(model) and model.compile_llm(**options):
        return
    for part in compiled_parts(model):
        part.compile(**options)


def _is_small(model: Orchestrator) -> bool:
    return int(model.llm.config.hidden_size) <= SMALL
