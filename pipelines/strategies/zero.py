"""``strategy=deepspeed``: DeepSpeed's ZeRO 1, 2 or 3, with one engine per trained role.

Lightning's own DeepSpeedStrategy takes one optimiser and refuses a CPU. Here modules stay as they are and are called as
they are; an engine only owns a role's gradients, float32 master weights and optimiser states. Gradients are clipped and
looked at by the module's ``step_role`` like in any other strategy, so an engine's part is asked for by hand: reduce,
norm, step. Computation in bf16 is autocast, as with ddp.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from lightning_modules.stage_module import StageModule
from pipelines.strategies.fsdp2 import sharding_mesh
from pipelines.strategies.stored_whole import StoredWhole
from streamchar.distributed.full_state import shape_of
from streamchar.distributed.sharding import Sharding

SMALL = 100_000
"""ZeRO-3 keeps parameters of fewer elements whole: learned nulls and tables are used outside of ``forward``."""


class EngineOptimizer:
    """One role's engine behind an optimiser's interface.

    Args:
        engine: of DeepSpeed, with ``managed_gradient_accumulation`` off: ``backward`` only adds gradients up.
    """

    def __init__(self, engine: Any, stage: int) -> None:
        self.engine, self.zero, self.stage = engine, engine.optimizer, stage
        self._set_steps(0)
        self.defaults: dict[str, Any] = {}
        self.state: dict[Tensor, Any] = {}
        self._drop = False

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.zero.param_groups

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

    def drop_gradients(self) -> None:
        """Make the next step do nothing."""
        self._drop = True

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        if closure is not None:
            closure()
        if not self._drop:
            self.zero.step()
        self._drop = False
        self.zero.zero_grad()
        self.engine._running_engine_step = False

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.zero.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {}

    # Whole states by name, as every strategy stores them

    def named_state(self, names: Mapping[Tensor, str], keep: bool) -> dict[str, dict[str, Tensor]]:
        from deepspeed.utils import safe_get_full_optimizer_state

        found, steps = {}, self._steps()
        for parameter in self._parameters():
            values = {k: safe_get_full_optimizer_state(parameter, k) for k in ("exp_avg", "exp_avg_sq")}
            if keep and steps:
                found[names[parameter]] = {"step": torch.tensor(float(steps)),
                                           **{k: v.detach().cpu() for k, v in values.items()}}
        return found

    def load_named_state(self, names: Mapping[Tensor, str], state: dict[str, dict[str, Tensor]]) -> None:
        steps = {float(given["step"]) for given in state.values()}
        self._set_steps(max(steps, default=0.0))
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

    def _steps(self) -> float:
        return max(float(state["step"]) for state in self._states())

    def _set_steps(self, steps: float) -> None:
        for state in self._states():
            state["step"] = torch.full_like(torch.as_tensor(state["step"]), steps)


class ZeroEngines(StoredWhole, DDPStrategy):
    """One engine per trained role; frozen models are shared out by FSDP2 if asked for.

    Every role trains models of its own with AdamW; the configuration's checks refuse all else.

    Args:
        backend: ``nccl`` or ``gloo``.
        stage: of ZeRO, 1 to 3.
        frozen: ``shard``, ``offload`` (to the CPU) or ``replicate`` for models that do not learn.
    """

    def __init__(self, backend: str, stage: int, frozen: str) -> None:
        super().__init__(process_group_backend=backend)
        self.stage, self.frozen = stage, frozen
        self.sharded = stage == 3 or frozen != "replicate"
        self.engines: dict[str, Any] = {}

    def setup_environment(self) -> None:
        super().setup_environment()
        mesh = sharding_mesh(self.root_device.type, self.world_size, 0)
        cast(StageModule, self.lightning_module).sharding = Sharding(
            mesh, trained=False, frozen=self.frozen != "replicate", offload_frozen=self.frozen == "offload")

    def configure_ddp(self) -> None:
        """The engines average gradients."""

    def setup_optimizers(self, trainer: L.Trainer) -> None:
        super().setup_optimizers(trainer)
        module = cast(StageModule, self.lightning_module)
        optimizers = []
        for role, wrapped in zip(module.role_names(), self.optimizers, strict=True):
            engine = self._engine(module, role, wrapped)
            self.engines[role] = engine
            optimizers.append(EngineOptimizer(engine, self.stage))
        self.optimizers = cast(Any, optimizers)

    def _engine(self, module: StageModule, role: str, optimizer: torch.optim.Optimizer) -> Any:
        import deepspeed

        deepspeed.init_distributed(str(self.process_group_backend), verbose=False)
        models = nn.ModuleList(m for m, _ in module.role_modules[role])
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # DeepSpeed makes the states by a step of its own
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        engine, *_ = deepspeed.initialize(model=models, optimizer=optimizer, dist_init_required=False, config={
            "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False, "gradient_clipping": module.role_options[role].clip,
            "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {"stage": self.stage, "stage3_param_persistence_threshold": SMALL}})
        if self.stage == 3:
            # Models are not called through the engine, so it never knows a whole pass and would give up everything.
            small = engine.optimizer.persistent_parameters
            small[0].all_gather(small)
            for parameter in small:
                parameter.is_external_param = True
        return engine

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, role: str = "", **kwargs: Any) -> Tensor:
        """Through the role's engine, which adds the gradients up."""
        self.engines[role].backward(closure_loss)
        return closure_loss
