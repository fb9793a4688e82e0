"""Stage 2: the joint audio-video teacher, with the orchestrator trained along."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.config import TeacherStage
from lightning_modules.figures import by_group, levels, sometimes
from lightning_modules.fixed_streams import FixedStreams
from lightning_modules.micro_batches import micro_batches
from lightning_modules.pointer_records import ConstantRate, held_out_maps, pointer_records
from lightning_modules.stage_module import StageModule
from streamchar.diffusion.noise import NoiseKey
from streamchar.distributed.out_of_memory import at_work
from streamchar.evaluation.pointer_map import PointerMap
from streamchar.evaluation.records import PointerRecord, SampleVideo
from streamchar.objectives.conditioning import perturb
from streamchar.objectives.drops import DropConfig
from streamchar.objectives.joint import JointLosses, joint_losses
from streamchar.objectives.per_sample import batch_mean
from streamchar.objectives.speech import pointer_error, pointer_mean
from streamchar.rollout.character import Character
from streamchar.rollout.plan import teacher_plan
from streamchar.types import ChunkBatch

NO_DROPS = DropConfig(ref=0.0, motion=0.0, sink=0.0, condition=0.0, text=0.0, motion_noise=0.0, history_noise=0.0)


class TeacherModule(StageModule):
    """Joint flow matching; gradient reaches the orchestrator through c_a."""

    clock_role = "teacher"
    ema_roles: tuple[str, ...] = ("teacher", "orchestrator")
    headline_metrics = ("eval/loss", "eval/video", "eval/audio")

    def __init__(self, character: Character, stage: TeacherStage, seed: int, directory: Path | None = None) -> None:
        super().__init__(stage, seed, directory)
        self.character, self.options, self.diffusion = character, stage, character.diffusion
        teacher, orchestrator = character.denoiser, character.orchestrator
        self.teacher, self.orchestrator = teacher, orchestrator
        self.fixed = FixedStreams(character, seed)
        self.pointer_records: list[PointerRecord] = []
        self.pointer_maps: list[PointerMap] = []
        self.constant_rate = ConstantRate()
        self.role_modules = {"teacher": [(teacher, 1.0), (orchestrator, stage.orchestrator_lr_scale)]}
        self.role_options = {"teacher": stage.optimizer}
        self.learns_orchestrator = stage.orchestrator_lr_scale > 0
        if not self.learns_orchestrator:
            orchestrator.requires_grad_(False)
            self.role_modules["teacher"].pop()
            self.ema_roles = ("teacher",)

    def _total(self, losses: JointLosses, batch: ChunkBatch, pictured: Tensor | None = None) -> Tensor:
        """The weighted loss; ``pictured``: share of items with pictures in what ``batch`` is a part of, if of any."""
        w, frames = self.options, batch.has_video
        return (w.video_weight * batch_mean(losses.video, frames, pictured) + w.audio_weight * batch_mean(losses.audio)
                + w.head_weight * losses.head.mean() + w.pointer_weight * pointer_mean(losses.pointer, batch))

    def _pictured(self, batch: ChunkBatch) -> Tensor:
        """Share of items with pictures in this step's batches of all ranks; each may have another number of them."""
        own = batch.has_video.sum()
        ranks: Any = self.all_gather(own) if self.trainer.world_size > 1 else own
        return ranks.sum() / (len(batch) * self.trainer.world_size)

    def training_step(self, batch: ChunkBatch, batch_index: int) -> None:
        values: dict[str, Any] = {}
        total = torch.zeros((), device=self.device)
        pictured = self._pictured(batch)
        for part in micro_batches(batch, self.stage.accumulate):
            key = self.key(part.index, "train")
            part.conditions = perturb(part.conditions, key, self.options.drops)
            with at_work("the teacher's forward pass"):
                losses = joint_losses(self.teacher, self.orchestrator, part, key, self.diffusion, self.options.drops,
                                      self.learns_orchestrator, with_pointer=self.learns_orchestrator)
            share = len(part) / len(batch)
            self.constant_rate.see(part)
            loss = self._total(losses, part, pictured)
            self.role_backward("teacher", loss * share)
            total += loss.detach() * share
            values = {"train/video": sometimes(losses.video, part.has_video),
                      "train/audio": losses.audio.mean(), "train/head": losses.head.mean(),
                      "train/pointer": pointer_mean(losses.pointer, part),
                      "pointer/train_error": pointer_error(losses.predicted, part),
                      **levels("train/audio", losses.audio, losses.sigma),
                      **by_group("train/audio", losses.audio, part.groups),
                      **by_group("train/video", losses.video, part.groups, part.has_video),
                      **levels("train/video", losses.video, losses.sigma, part.has_video)}
        figures = self.step_role("teacher", total, batch.keys)
        self.log_step({**values, **figures}, len(batch))

    def validation_step(self, batch: ChunkBatch, batch_index: int) -> None:
        key = NoiseKey.of(self.seed, batch.index, "val")
        losses = joint_losses(self.teacher, self.orchestrator, batch, key, self.diffusion, NO_DROPS)
        self.pointer_records += pointer_records(batch, losses.predicted, self.constant_rate.value)
        values = {"eval/loss": self._total(losses, batch), "eval/video": batch_mean(losses.video, batch.has_video),
                  "eval/audio": losses.audio.mean()}
        self.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch))

    def on_validation_epoch_end(self) -> None:
        self.pointer_maps = held_out_maps(self, self.orchestrator)

    def extra_state(self) -> dict[str, Any]:
        return {"constant_rate": self.constant_rate.state_dict()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.constant_rate.load_state_dict(state.get("constant_rate", {}))

    def on_train_start(self) -> None:
        self.fixed.begin(self.data().fixed_streams(2).to(self.device))

    def sample_videos(self, averaged: Callable[[], AbstractContextManager[None]] | None) -> list[SampleVideo]:
        """Reference | teacher (averaged, where it is), at fixed prompts and noise."""
        plan = teacher_plan(self.diffusion)
        return self.fixed.sample_videos({"teacher": (self.teacher, plan, averaged or nullcontext)})
