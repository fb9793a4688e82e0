"""Stage 1: the orchestrator learns to speak, on speech alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.config import OrchestratorStage
from lightning_modules.figures import by_group, levels
from lightning_modules.micro_batches import micro_batches
from lightning_modules.pointer_records import ConstantRate, held_out_maps, pointer_records
from lightning_modules.stage_module import StageModule
from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.noise import NoiseKey
from streamchar.distributed.out_of_memory import at_work
from streamchar.evaluation.pointer_map import PointerMap
from streamchar.evaluation.records import PointerRecord
from streamchar.objectives.conditioning import perturb
from streamchar.objectives.speech import SpeechLosses, pointer_error, pointer_mean, speech_losses
from streamchar.orchestrator.model import Orchestrator
from streamchar.types import ChunkBatch


class OrchestratorModule(StageModule):
    """Flow matching by the light head on c_a, plus the pointer's loss."""

    clock_role = "orchestrator"
    ema_roles = ("orchestrator",)
    headline_metrics = ("eval/loss", "eval/audio")

    def __init__(self, orchestrator: Orchestrator, stage: OrchestratorStage, diffusion: DiffusionConfig, seed: int,
                 directory: Path | None = None) -> None:
        super().__init__(stage, seed, directory)
        self.orchestrator, self.options, self.diffusion = orchestrator, stage, diffusion
        self.role_modules = {"orchestrator": [(orchestrator, 1.0)]}
        self.role_options = {"orchestrator": stage.optimizer}
        self.pointer_records: list[PointerRecord] = []
        self.pointer_maps: list[PointerMap] = []
        self.constant_rate = ConstantRate()

    def _total(self, losses: SpeechLosses, batch: ChunkBatch, share: float = 1.0) -> Tensor:
        return losses.flow.mean() + self.options.pointer_weight * pointer_mean(losses.pointer, batch, share)

    def training_step(self, batch: ChunkBatch, batch_index: int) -> None:
        values: dict[str, Any] = {}
        total = torch.zeros((), device=self.device)
        pointer_share = self.options.pointer_share
        for part in micro_batches(batch, self.stage.accumulate):
            key = self.key(part.index, "train")
            part.conditions = perturb(part.conditions, key, self.options.drops)
            with at_work("the orchestrator's forward pass"):
                losses = speech_losses(self.orchestrator, part, key, self.diffusion, pointer_share,
                                       self.options.draws)
            share = len(part) / len(batch)
            self.constant_rate.see(part)
            loss = self._total(losses, part, pointer_share)
            self.role_backward("orchestrator", loss * share)
            total += loss.detach() * share
            values = {"train/audio": losses.flow.mean(),
                      "train/pointer": pointer_mean(losses.pointer, part, pointer_share),
                      "pointer/train_error": pointer_error(losses.predicted, part, pointer_share),
                      **levels("train/audio", losses.flow, losses.sigma),
                      **by_group("train/audio", losses.flow, part.groups * self.options.draws)}
        figures = self.step_role("orchestrator", total, batch.keys)
        self.log_step({**values, **figures}, len(batch))

    def validation_step(self, batch: ChunkBatch, batch_index: int) -> None:
        losses = speech_losses(self.orchestrator, batch, NoiseKey.of(self.seed, batch.index, "val"), self.diffusion)
        self.pointer_records += pointer_records(batch, losses.predicted, self.constant_rate.value)
        values = {"eval/loss": self._total(losses, batch), "eval/audio": losses.flow.mean()}
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch))

    def on_validation_epoch_end(self) -> None:
        self.pointer_maps = held_out_maps(self, self.orchestrator)

    def extra_state(self) -> dict[str, Any]:
        return {"constant_rate": self.constant_rate.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.constant_rate.load_state_dict(state.get("constant_rate", {}))
