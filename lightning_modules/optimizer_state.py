"""An optimiser's state by parameter name, whole, so that any strategy can go on from what another has saved.

Hyper-parameters are not stored: they follow from the configuration and the number of updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_modules.optimizers import MuonWithAdamW
from streamchar.distributed.full_state import copy_whole, gathered
from streamchar.errors import CheckpointError

State = dict[str, dict[str, Tensor]]


def parts(optimizer: Any) -> tuple[torch.optim.Optimizer, ...]:
    """The optimisers that hold state."""
    return (optimizer.muon, optimizer.adamw) if isinstance(optimizer, MuonWithAdamW) else (optimizer,)


def forget_state(optimizer: Any) -> None:
    """Free what an optimiser remembers of its steps."""
    if hasattr(optimizer, "forget_state"):  # an engine of DeepSpeed
        optimizer.forget_state()
        return
    for part in parts(optimizer):
        part.state.clear()


def named_state(optimizer: Any, names: Mapping[Tensor, str], keep: bool) -> State:
    """``{parameter: {"exp_avg": ..., "step": ...}}``; a collective where parameters are sharded.

    An optimiser that keeps its parameters elsewhere (an engine of DeepSpeed) has a method of this name itself.
    """
    if hasattr(optimizer, "named_state"):
        return optimizer.named_state(names, keep)
    found: State = {}
    for part in parts(optimizer):
        for group in part.param_groups:
            for parameter in group["params"]:
                if parameter in part.state:
                    found[names[parameter]] = gathered(part.state[parameter], keep)
    return found if keep else {}


def load_named_state(optimizer: Any, names: Mapping[Tensor, str], state: State) -> None:
    """The inverse of :func:`named_state`; parameters without a saved state begin without one.

    Raises:
        CheckpointError: for a state of another shape, or of a parameter that this optimiser does not have.
    """
    if hasattr(optimizer, "load_named_state"):
        optimizer.load_named_state(names, state)
        return
    left = set(state)
    for part in parts(optimizer):
        part.state.clear()
        for group in part.param_groups:
            for parameter in group["params"]:
                name = names[parameter]
                if name in state:
                    part.state[parameter] = {k: _placed(v, parameter, name, bool(group.get("fused")))
                                             for k, v in state[name].items()}
                    left.discard(name)
    if left:
        raise CheckpointError(f"the checkpoint has optimiser states of {sorted(left)[0]} (and {len(left) - 1} more), "
                              "which this run does not train; use the checkpoint's own config.yaml or another name=")


def _placed(value: Tensor, parameter: Tensor, name: str, fused: bool) -> Tensor:
    if value.ndim == 0:  # the number of steps, which a fused optimiser counts on the device
        return value.to(parameter.device, copy=True) if fused else value.clone()
    if value.shape != parameter.shape:
        raise CheckpointError(f"the checkpoint's optimiser state of {name} is {tuple(value.shape)}, the parameter "
                              f"{tuple(parameter.shape)}; use the checkpoint's own config.yaml or another name=")
    placed = torch.zeros_like(parameter, dtype=value.dtype, requires_grad=False)
    copy_whole(placed, value)
    return placed
