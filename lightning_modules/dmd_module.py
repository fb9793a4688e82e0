"""Stage I: distribution matching on single chunks with real conditions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

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
    """First the student, as role ``trajectory``, learns where the teacher ends, for ``trajectory.steps`` iterations.

    In all later ones the critic learns a fresh sample; each n-th, the student is matched to the teacher.
    """

    options: DmdStage

    def __init__(self, character: Character, teacher: Denoiser, critic: Denoiser, stage: DmdStage, seed: int,
                 directory: Path | None = None, mouth: MouthDetector | None = None) -> None:
        super().__init__(character, teacher, critic, stage, seed, directory, mouth)
        if stage.trajectory.steps:
            self.role_modules["trajectory"] = [(self.student, 1.0)]
            self.role_options["trajectory"] = stage.trajectory.optimizer

    @property
    def starting(self) -> bool:
        """Whether this iteration still belongs to the student's start."""
        return self.iteration < self.options.trajectory.steps

    def keeps_time(self, role: str) -> bool:
        return role == ("trajectory" if self.starting else self.clock_role)

    def total_updates(self, role: str) -> int:
        start = self.options.trajectory.steps
        return {"trajectory": start, "critic": self.stage.steps - start}.get(role) or super().total_updates(role)

    @property
    def generator_updates(self) -> int:
        """Updates of the student in either way, which its average follows."""
        return super().generator_updates + self.updates.get("trajectory", 0)

    def training_step(self, batch: ChunkBatch, batch_index: int) -> None:
        if self.starting:
            self.trajectory_step(batch)
        else:
            if self.iteration == self.options.trajectory.steps > 0:
                self.forget_optimizer("trajectory")
            self.matching_step(batch)

    def trajectory_step(self, batch: ChunkBatch) -> None:
        """Teach the student where the teacher ends from one of its noise levels."""
        exit_step, options = self.exit_step(), self.options.trajectory
        total = torch.zeros((), device=self.device)
        values: dict[str, Any] = {"train/exit_step": float(exit_step)}
        for part in micro_batches(batch, self.stage.accumulate):
            share = len(part) / len(batch)
            conditions, prefix = self.conditions(part)
            video, audio = trajectory_losses(
                self.student, self.teacher, self.orchestrator, conditions, prefix, part.target, part.audio_weight,
                self.key(part.index, "trajectory"), self.plan.sigmas[exit_step], self.diffusion, options.teacher_steps)
            loss = (options.video_weight * video + options.audio_weight * audio).mean() * share
            self.role_backward("trajectory", loss)
            total = total + loss.detach()
            values |= {"train/trajectory_video": video.mean(), "train/trajectory_audio": audio.mean()}
        figures = self.step_role("trajectory", total, batch.keys)
        self.log_step({"train/loss": total, **values, **figures}, len(batch))

    def matching_step(self, batch: ChunkBatch) -> None:
        """Train the critic and, at its turn, the student."""
        exit_step = self.exit_step()
        generator = torch.zeros((), device=self.device) if self.generator_turn else None
        critic = torch.zeros((), device=self.device)
        values: dict[str, Any] = {"train/exit_step": float(exit_step)}
        for part in micro_batches(batch, self.stage.accumulate):
            share = len(part) / len(batch)
            conditions, prefix = self.conditions(part)
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
        self.finish(generator, critic, values, batch.keys)

    @torch.no_grad()
    def conditions(self, part: ChunkBatch) -> tuple[Conditions, Prefix]:
        """What student, teacher and critic all see."""
        conditions = perturb(part.conditions, self.key(part.index, "drops"), self.options.drops)
        return conditions, self.orchestrator.prefix(conditions)
