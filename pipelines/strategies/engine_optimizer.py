"""An engine of DeepSpeed's ZeRO, and the roles that train its model, each behind an optimiser's interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from streamchar.distributed.full_state import shape_of


class Engine:
    """Gradients, float32 master weights and Adam's states of one model.

    Several roles may train the model one after the other: weights go on, but the states belong to the ``owner`` alone,
    and begin at zero for the next one, as those of an optimiser of its own would.

    Args:
        engine: of DeepSpeed, with ``managed_gradient_accumulation`` off: ``backward`` only adds gradients up.
        stage: of ZeRO, 1 to 3.
    """

    def __init__(self, engine: Any, stage: int) -> None:
        self.engine, self.zero, self.stage = engine, engine.optimizer, stage
        self.owner: str | None = None
        self.pass_on(None)

    def pass_on(self, role: str | None) -> None:
        """Give the states to another role, which begins without any; None: to the next that needs them."""
        for state in self._states():
            state["step"] = torch.zeros_like(torch.as_tensor(state["step"]))
            state["exp_avg"].zero_()
            state["exp_avg_sq"].zero_()
        self.owner = role

    def gradient_norm(self, limit: float) -> Tensor:
        """Reduce this iteration's gradients over the ranks; their norm, which the next step clips to ``limit``."""
        from deepspeed.runtime.utils import combine_grad_norm_groups

        self.engine._running_engine_step = True
        if self.stage > 1:
            self.zero.finalize_gradient_accumulation_boundary()
        else:
            self.engine.allreduce_gradients()
        norm = (combine_grad_norm_groups(self.zero._get_norm_groups()) if self.stage == 3
                else self.zero.scaled_global_norm())
        self.zero.clip_grad = limit
        # DeepSpeed masks norms that are not finite as -1.
        return torch.where(torch.as_tensor(norm) < 0, float("nan"), torch.as_tensor(norm))

    def step(self, groups: list[dict[str, Any]] | None) -> None:
        """Move the weights by the options of ``groups``, or (None) drop the gradients."""
        if groups is not None:
            for group, options in zip(self.zero.param_groups, groups, strict=True):
                group.update(options)
            self.zero.step()
        self.zero.zero_grad()
        self.engine._running_engine_step = False

    # Whole states by name, as every strategy stores them

    def named_state(self, names: Mapping[Tensor, str], keep: bool) -> dict[str, dict[str, Tensor]]:
        from deepspeed.utils import safe_get_full_optimizer_state

        found, steps = {}, max(float(state["step"]) for state in self._states())
        for parameter in self._parameters():
            values = {k: safe_get_full_optimizer_state(parameter, k) for k in ("exp_avg", "exp_avg_sq")}
            if keep and steps:
                found[names[parameter]] = {"step": torch.tensor(steps),
                                           **{k: v.detach().cpu() for k, v in values.items()}}
        return found

    def load_named_state(self, names: Mapping[Tensor, str], state: dict[str, dict[str, Tensor]]) -> None:
        steps = max(float(given["step"]) for given in state.values())
        for own in self._states():
            own["step"] = torch.full_like(torch.as_tensor(own["step"]), steps)
        for parameter in self._parameters():
            given = state.get(names[parameter], {})
            for key in ("exp_avg", "exp_avg_sq"):
                value = given.get(key, torch.zeros(shape_of(parameter)))
                self._set_state(parameter, value.to(parameter.device), key)

    def _set_state(self, parameter: nn.Parameter, value: Tensor, key: str) -> None:
        """One whole state to this rank's part of it."""
        from deepspeed.utils import safe_set_full_optimizer_state

        if self.stage < 3:
            safe_set_full_optimizer_state(parameter, value, key)
            return
        # DeepSpeed reads a rank's part beyond the end of what does not divide by the ranks: parts are padded there.
        part, _ = self.zero._get_fp32_opt_state_partition(parameter, False, optim_state_key=key)
        begin = self.zero._get_param_partition_rank(parameter) * part.numel()
        given = value.flatten()[begin:begin + part.numel()]
        part.data.zero_()
        part.data[:given.numel()].copy_(given)

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self.engine.module.parameters() if p.requires_grad]

    def _states(self) -> list[dict[str, Any]]:
        """State of every flat piece of float32 weights on this rank; what no step has made yet begins at zero."""
        three = self.stage == 3
        pieces = self.zero.fp32_partitioned_groups_flat if three else self.zero.single_partition_of_fp32_groups
        states = self.zero.optimizer.state
        for piece in pieces:
            if "step" not in states[piece]:
                fused = self.zero.optimizer.param_groups[0].get("fused")
                states[piece] = {"step": torch.zeros((), device=piece.device if fused else None),
                                 "exp_avg": torch.zeros_like(piece, requires_grad=False),
                                 "exp_avg_sq": torch.zeros_like(piece, requires_grad=False)}
        if self.stage < 3:
            # DeepSpeed links states to parameters once, in the first group's first step, before later groups have any.
            self.zero._hp_optimizer_states_linked = False
            self.zero._lazy_init_hp_params_optimizer_state()
        return [states[piece] for piece in pieces]


class EngineOptimizer:
    """One role that trains an engine's model.

    Args:
        engine: its model's, which other roles may use too, one after the other.
        role: the name under which it owns the engine's states.
        groups: of the role's AdamW, whose options the engine takes over in its steps.
    """

    def __init__(self, engine: Engine, role: str, groups: list[dict[str, Any]]) -> None:
        self.engine, self.role = engine, role
        self.param_groups = [{k: group[k] for k in ("lr", "full_lr", "betas", "weight_decay")} for group in groups]
        self.defaults: dict[str, Any] = {}
        self.state: dict[Tensor, Any] = {}
        self._drop = False

    def gradient_norm(self, limit: float) -> Tensor:
        """Norm of this iteration's gradients over all ranks, which the next step clips to ``limit``."""
        if self.engine.owner != self.role:
            self.engine.pass_on(self.role)
        return self.engine.gradient_norm(limit)

    def drop_gradients(self) -> None:
        """Make the next step do nothing."""
        self._drop = True

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        if closure is not None:
            closure()
        self.engine.step(None if self._drop else self.param_groups)
        self._drop = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.engine.zero.zero_grad()

    def forget_state(self) -> None:
        if self.engine.owner == self.role:
            self.engine.pass_on(None)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def named_state(self, names: Mapping[Tensor, str], keep: bool) -> dict[str, dict[str, Tensor]]:
        return self.engine.named_state(names, keep) if self.engine.owner == self.role else {}

    def load_named_state(self, names: Mapping[Tensor, str], state: dict[str, dict[str, Tensor]]) -> None:
        if state:
            self.engine.pass_on(self.role)
            self.engine.load_named_state(names, state)
