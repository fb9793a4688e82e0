"""How the two models are shared out over ranks by FSDP2, block by block; stands beside the models, not in them.

Each block is gathered when it runs and given up afterwards; what is left (projections, embeddings, learned nulls) is
one more unit of the model. Parameters stay float32 in their sharded form: computation may be in ``bfloat16``, the
optimiser moves the float32 parts (pure bf16 weights would not move at the learning rates of distillation).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.utils._pytree as pytree
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

PLANS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Denoiser": (("blocks",), ("encode_context", "null_like")),
    "Orchestrator": (("llm.layers", "pointer"), ("prefix", "block", "velocity")),
}
"""Of each model: parts (or lists of parts) that are gathered on their own, and methods beside ``forward`` that use the
model's own parameters. ``Orchestrator.point`` and ``reading`` only call such parts and methods."""


def units(model: nn.Module) -> Iterator[nn.Module]:
    """Parts that are gathered on their own, in the order of the forward pass."""
    for path in PLANS[type(model).__name__][0]:
        part = model.get_submodule(path)
        yield from part if isinstance(part, nn.ModuleList) else (part,)


def open_up(*kinds: type) -> None:
    """Let FSDP2 see the tensors inside of dataclasses that models take and give: gradients that come to these make it
    gather a model again."""
    for kind in kinds:
        if kind not in pytree.SUPPORTED_NODES:
            pytree.register_dataclass(kind)


@dataclass(frozen=True)
class Sharding:
    """What is shared out, and how.

    mesh: one dimension (FSDP), or two, ``replicate x shard`` (HSDP).
    compute: type in which gathered parameters are used; None: their own. Gradients are reduced in float32.
    trained, frozen: whether models with and without gradients are shared out.
    offload_frozen: parts of frozen models rest in the CPU's memory and are moved to the device when gathered.
    """

    mesh: DeviceMesh
    compute: torch.dtype | None = None
    trained: bool = True
    frozen: bool = True
    offload_frozen: bool = False

    def apply_all(self, models: Iterable[nn.Module]) -> None:
        """Share out models of :data:`PLANS`, in place; every rank must do so.

        Weights that several models hold (adapters' base) stay one tensor, of which a rank keeps one part. All of the
        holders must then be shared out alike.
        """
        found = list(models)
        held = Counter(p for model in found for p in model.parameters())
        common = {p for p, holders in held.items() if holders > 1}
        del held  # whole models are given up as they are shared out
        parts: dict[nn.Parameter, nn.Parameter] = {}
        for model in found:
            places = [(module, name, p) for module in model.modules()
                      for name, p in module.named_parameters(recurse=False) if p in common]
            self.apply(model)
            for module, name, p in places:
                # FSDP2 looks for replaced parameters before its first pass, as after ``load_state_dict(assign=True)``.
                setattr(module, name, parts.setdefault(p, getattr(module, name)))

    def apply(self, model: nn.Module) -> None:
        """Share out one model that has no weights in common with another."""
        learns = any(p.requires_grad for p in model.parameters())
        if not (self.trained if learns else self.frozen):
            return
        precision = MixedPrecisionPolicy(param_dtype=self.compute, cast_forward_inputs=False,
                                         reduce_dtype=torch.float32 if self.compute else None)
        offload = self.offload_frozen and not learns
        policy = CPUOffloadPolicy(pin_memory=torch.cuda.is_available()) if offload else OffloadPolicy()
        # Given up after every forward pass, the model's own unit too: averaged weights swapped in are seen at once.
        entries = PLANS[type(model).__name__][1]  # sharding gives the model a class of another name
        for unit in [*units(model), model]:
            fully_shard(unit, mesh=self.mesh, reshard_after_forward=True, mp_policy=precision, offload_policy=policy)
        for name in entries:
            register_fsdp_forward_method(model, name)
