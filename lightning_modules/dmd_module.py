"""Stage I: distribution matching on single chunks with real conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.config import DmdStage
from lightning_modules.matching_module import MatchingModule
from lightning_modules.micro_batches import micro_batches
from streamchar.denoiser.model import Denoiser
from streamchar.evaluation.mouth import MouthDetector
from streamchar.objectives.conditioning import perturb
from streamchar.objectives.trajectory import trajectory_losses
from streamchar.orchestrator.model import Prefix
from streamchar.rollout.character import Character
from streamchar.rollout.denoise import denoise_chunk
from streamchar.types import ChunkBatch, Conditions


class DmdModule(MatchingModule):
    """Every iteration: the critic learns a fresh sample; each n-th: the student is matched to the teacher.

    Before that, for ``trajectory.steps`` iterations, the student (role ``trajectory``) learns where the teacher ends.
    """

    options: DmdStage

    def __init__(self, character: Character, teacher: Denoiser, critic: Denoiser, stage: DmdStage, seed: int,
                 directory: Path | None = None, mouth: MouthDetector | None = None) -> None:
        super().__init__(character, teacher, critic, stage, seed, directory, mouth)
        if stage.trajectory.steps:
            self.role_modules["trajectory"] = [(self.student, 1.0)]
            self.role_options["trajectory"] = stage.trajectory.optimizer

    def total_updates(self, role: str) -> int:
        return self.options.trajectory.steps if role == "trajectory" else super().total_updates(role)

    @property
    def generator_updates(self) -> int:
        """Updates of the student in either way."""
        return super().generator_updates + self.updates.get("trajectory", 0)

    def training_step(self, batch: ChunkBatch, batch_index: int) -> None:
        exit_step = self.exit_step()
        generator = torch.zeros((), device=self.device) if self.generator_turn else None
        starts = self.iteration < self.options.trajectory.steps
        start, critic = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        values: dict[str, Any] = {"train/exit_step": float(exit_step)}
        for part in micro_batches(batch, self.stage.accumulate):
            share = len(part) / len(batch)
            conditions = perturb(part.conditions, self.key(part.index, "drops"), self.options.drops)
            with torch.no_grad():
                prefix = self.orchestrator.prefix(conditions)
            if starts:
                loss, figures = self.trajectory_backward(part, conditions, prefix, exit_step, share)
                start, values = start + loss * share, values | figures
            if generator is not None:
                key = self.key(part.index, "generator")
                out = denoise_chunk(self.student, self.orchestrator, conditions, prefix, self.plan, key, exit_step,
                                    stop_at_exit=True)
                loss, figures = self.generator_backward(out.exit, prefix, conditions, part.audio_weight, key, share)
                generator, values = generator + loss * share, values | figures
            key = self.key(part.index, "critic")
            with torch.no_grad():
                out = denoise_chunk(self.student, self.orchestrator, conditions, prefix, self.plan, key, exit_step,
                                    stop_at_exit=True)
            loss, figures = self.critic_backward(out.final, prefix, conditions, part.audio_weight, key, share)
            critic, values = critic + loss * share, values | figures
        if starts:
            values |= self.step_role("trajectory", start, batch.keys)
        self.finish(generator, critic, values, batch.keys)

    def trajectory_backward(self, part: ChunkBatch, conditions: Conditions, prefix: Prefix, exit_step: int,
                            share: float) -> tuple[Tensor, dict[str, Any]]:
        """The student's regression at the level of ``exit_step``; returns the loss and its figures."""
        video, audio = trajectory_losses(
            self.student, self.teacher, self.orchestrator, conditions, prefix, part.target, part.audio_weight,
            self.key(part.index, "trajectory"), self.plan.sigmas[exit_step], self.diffusion,
            self.options.trajectory.teacher_steps)
        loss = (self.options.video_weight * video + self.options.audio_weight * audio).mean()
        self.manual_backward(loss * share)
        return loss.detach(), {"train/trajectory_video": video.mean(), "train/trajectory_audio": audio.mean()}
