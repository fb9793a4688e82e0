"""Stage I: distribution matching on single chunks with real conditions."""

from __future__ import annotations

from typing import Any

import torch

from lightning_modules.config import DmdStage
from lightning_modules.matching_module import MatchingModule
from lightning_modules.micro_batches import micro_batches
from streamchar.distributed.out_of_memory import at_work
from streamchar.objectives.conditioning import perturb
from streamchar.orchestrator.model import Prefix
from streamchar.rollout.denoise import denoise_chunk
from streamchar.types import ChunkBatch, Conditions


class DmdModule(MatchingModule):
    """Single chunks with real conditions, with or without a start on the teacher's trajectories."""

    options: DmdStage

    def training_step(self, batch: ChunkBatch, batch_index: int) -> None:
        if self.begins_iteration():
            self.trajectory_step(batch)
        else:
            self.matching_step(batch)

    def trajectory_step(self, batch: ChunkBatch) -> None:
        """Teach the student where the teacher ends from one of its noise levels."""
        exit_step, total = self.exit_step(), torch.zeros((), device=self.device)
        values: dict[str, Any] = {"train/exit_step": float(exit_step)}
        for part in micro_batches(batch, self.stage.accumulate):
            share = len(part) / len(batch)
            conditions, prefix, untold = self.conditions(part)
            loss, figures = self.trajectory_backward(conditions, prefix, untold, part.target, part.audio_weight,
                                                     self.key(part.index, "trajectory"), exit_step, share,
                                                     part.groups)
            total, values = total + loss * share, values | figures
        self.finish_trajectory(total, values, batch.keys)

    def matching_step(self, batch: ChunkBatch) -> None:
        """Train the critic and, at its turn, the student."""
        exit_step = self.exit_step()
        generator = torch.zeros((), device=self.device) if self.generator_turn else None
        critic = torch.zeros((), device=self.device)
        values: dict[str, Any] = {"train/exit_step": float(exit_step)}
        for part in micro_batches(batch, self.stage.accumulate):
            share = len(part) / len(batch)
            conditions, prefix, untold = self.conditions(part)
            if generator is not None:
                key = self.key(part.index, "generator")
                with at_work("the student's forward pass"):
                    out = denoise_chunk(self.student, self.orchestrator, conditions, prefix, self.plan, key, exit_step,
                                        stop_at_exit=True, untold=untold)
                loss, figures = self.generator_backward(out.exit, prefix, untold, conditions, part.audio_weight, key,
                                                        share)
                generator, values = generator + loss * share, values | figures
            key = self.key(part.index, "critic")
            with at_work("the student's steps for the critic"), torch.no_grad():
                out = denoise_chunk(self.student, self.orchestrator, conditions, prefix, self.plan, key, exit_step,
                                    stop_at_exit=True, untold=untold)
            loss, figures = self.critic_backward(out.final, prefix, conditions, part.audio_weight, key, share,
                                                 part.groups)
            critic, values = critic + loss * share, values | figures
        self.finish(generator, critic, values, batch.keys)

    @torch.no_grad()
    def conditions(self, part: ChunkBatch) -> tuple[Conditions, Prefix, Prefix | None]:
        """What student, teacher and critic all see, and the prefix without text where the student hears that too."""
        conditions = perturb(part.conditions, self.key(part.index, "drops"), self.options.drops)
        untold = self.orchestrator.untold_prefix(conditions) if self.plan.needs_untold else None
        return conditions, self.orchestrator.prefix(conditions), untold
