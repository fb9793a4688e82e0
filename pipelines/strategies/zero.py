"""``strategy=deepspeed``: DeepSpeed's ZeRO 1, 2 or 3, with one engine per trained model.

Lightning's own DeepSpeedStrategy takes one optimiser and refuses a CPU. Here modules stay as they are and are called as
they are; an engine only owns a model's gradients, float32 master weights and optimiser states. The module's
``step_role`` looks at gradients and clips them as under any other strategy, so an engine's part is asked for by hand:
reduce, norm, step. Computation in bf16 is autocast, as with ddp.
"""

from __future__ import annotations

import logging
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from lightning_modules.stage_module import StageModule
from pipelines.strategies.engine_optimizer import Engine, EngineOptimizer
from pipelines.strategies.fsdp2 import sharding_mesh
from pipelines.strategies.stored_whole import StoredWhole
from streamchar.distributed.sharding import Sharding

SMALL = 100_000
"""ZeRO-3 keeps parameters of fewer elements whole: learned nulls and tables are used outside of ``forward``."""


class ZeroEngines(StoredWhole, DDPStrategy):
    """One engine per trained model; frozen models are shared out by FSDP2 if asked for.

    Roles that train the same model in turn share its engine. All train with AdamW; the configuration's checks refuse
    all else.

    Args:
        backend: ``nccl`` or ``gloo``.
        stage: of ZeRO, 1 to 3.
        frozen: ``shard``, ``offload`` (to the CPU) or ``replicate`` for models that do not learn.
        selective: whether some products of recomputed blocks are kept.
    """

    def __init__(self, backend: str, stage: int, frozen: str, selective: bool) -> None:
        super().__init__(process_group_backend=backend)
        self.stage, self.frozen, self.selective = stage, frozen, selective
        self.sharded = stage == 3 or frozen != "replicate"
        self.engines: dict[str, Engine] = {}

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
        optimizers, made = [], {}
        for role, wrapped in zip(module.role_names(), self.optimizers, strict=True):
            options = [dict(group) for group in wrapped.param_groups]
            models = tuple(m for m, _ in module.role_modules[role])
            if models not in made:
                made[models] = Engine(self._engine(module, role, wrapped), self.stage)
            self.engines[role] = made[models]
            optimizers.append(EngineOptimizer(made[models], role, options))
        self.optimizers = cast(Any, optimizers)

    def _engine(self, module: StageModule, role: str, optimizer: torch.optim.Optimizer) -> Any:
        import deepspeed

        deepspeed.init_distributed(str(self.process_group_backend), verbose=False)
        shared = module.shared_weights()
        models = nn.ModuleList(part for m, _ in module.role_modules[role] for part in _own_parts(m, shared))
        for group in optimizer.param_groups:
            group["lr"] = 0.0  # DeepSpeed makes the states by a step of its own
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        engine, *_ = deepspeed.initialize(model=models, optimizer=optimizer, dist_init_required=False, config={
            "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1,
            "managed_gradient_accumulation": False, "gradient_clipping": module.role_options[role].clip,
            "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False,
            # Its linear layer adds the bias in place: a product that is kept for recomputation would get it twice.
            "zero_optimization": {"stage": self.stage, "stage3_param_persistence_threshold": SMALL,
                                  "memory_efficient_linear": not self.selective}})
        if self.stage == 3:
            # Models are not called through the engine, so it never knows a whole pass and would give up everything.
            small = engine.optimizer.persistent_parameters
            for parameter in small[:1]:
                parameter.all_gather(small)
            for parameter in small:
                parameter.is_external_param = True
        return engine

    def backward(self, closure_loss: Tensor, optimizer: Any, *args: Any, role: str = "", **kwargs: Any) -> Tensor:
        """Through the role's engine, which adds the gradients up."""
        self.engines[role].engine.backward(closure_loss)
        return closure_loss


def _own_parts(model: nn.Module, shared: set[Tensor]) -> list[nn.Module]:
    """What an engine takes of a model: all of it, or of one that lies on shared weights the parts that learn (adapters
    are layers of their own), so that the shared ones stay whole and common to all who use them."""
    if not any(p in shared for p in model.parameters()):
        return [model]
    return [part for part in model.modules() if any(p.requires_grad for p in part.parameters(recurse=False))]
