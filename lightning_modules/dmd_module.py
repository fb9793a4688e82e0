"""Stage I: distribution matching on single chunks with real conditions."""

from __future__ import annotations

from typing import Any

import torch

from lightning_modules.config import DmdStage
from lightning_modules.matching_module import MatchingModule
from lightning_modules.micro_batches import micro_batches
from streamchar.objectives.conditioning import perturb
from streamchar.rollout.denoise import denoise_chunk
from streamchar.types import ChunkBatch


class DmdModule(MatchingModule):
    """Every iteration: the critic learns a fresh sample; each n-th: the student is matched to the teacher."""

    options: DmdStage

    def training_step(self, batch: ChunkBatch, batch_index: int) -> None:
        exit_step = self.exit_step()
        generator = torch.zeros((), device=self.device) if self.generator_turn else None
        critic = torch.zeros((), device=self.device)
        values: dict[str, Any] = {"train/exit_step": float(exit_step)}
        for part in micro_batches(batch, self.stage.accumulate):
            share = len(part) / len(batch)
            conditions = perturb(part.conditions, self.key(part.index, "drops"), self.options.drops)
            with torch.no_grad():
                prefix = self.orchestrator.prefix(conditions)
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
