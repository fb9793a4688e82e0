"""What Stage I and Stage II share: student, critic, frozen teacher and orchestrator, and how an update is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.config import MatchingStage
from lightning_modules.figures import by_group, levels
from lightning_modules.fixed_streams import FixedStreams, System
from lightning_modules.held_out import HeldOutScores
from lightning_modules.stage_module import StageModule
from streamchar.denoiser.model import Denoiser
from streamchar.diffusion.config import DiffusionConfig
from streamchar.diffusion.noise import NoiseKey, scalar
from streamchar.distributed.out_of_memory import at_work
from streamchar.evaluation.mouth import MouthDetector
from streamchar.evaluation.pointer_map import PointerMap
from streamchar.evaluation.records import SampleVideo
from streamchar.objectives.distribution_matching import MatchingLosses, critic_losses, generator_losses, renoise
from streamchar.objectives.trajectory import trajectory_losses
from streamchar.orchestrator.model import Prefix
from streamchar.rollout.character import Character
from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import student_plan
from streamchar.types import ChunkBatch, Conditions, Latents, RolloutBatch


class MatchingModule(StageModule):
    """Distribution matching of a few-step student. The critic is the clock role: it is updated in every iteration
    of matching.

    Before that the student, as role ``trajectory``, learns where the teacher ends, for ``trajectory.steps`` iterations.

    ``character.denoiser`` is the student; ``teacher`` and the orchestrator are frozen and never stored. Student and
    critic are models of their own, or adapters on the teacher (``options.roles``).
    """

    clock_role = "critic"
    ema_roles = ("student",)
    headline_metrics = ("eval/student_energy_video", "eval/student_energy_audio", "eval/student_frechet_video",
                        "eval/student_frechet_audio")

    def __init__(self, character: Character, teacher: Denoiser, critic: Denoiser, stage: MatchingStage, seed: int,
                 directory: Path | None = None, mouth: MouthDetector | None = None) -> None:
        super().__init__(stage, seed, directory)
        self.character, self.options = character, stage
        self.student, self.critic, self.teacher = character.denoiser, critic, teacher
        self.orchestrator = character.orchestrator
        self.teacher.requires_grad_(False)
        self.orchestrator.requires_grad_(False)
        self.role_modules = {"critic": [(critic, 1.0)], "student": [(self.student, 1.0)]}
        self.role_options = {"critic": stage.critic, "student": stage.generator}
        if stage.trajectory.steps:
            self.role_modules["trajectory"] = [(self.student, 1.0)]
            self.role_options["trajectory"] = stage.trajectory.optimizer
        # The student's denoiser is never guided, and its critic neither: their null conditions stay as they are.
        for model in (self.student, critic):
            model.null_condition.requires_grad_(False)
        self.plan = student_plan(character.diffusion)
        self.held_out = HeldOutScores(character, teacher, seed, mouth)
        self.fixed = FixedStreams(character, seed)
        self.pointer_maps: list[PointerMap] = []
        self.chunk_seconds = float(character.clock.chunk_seconds)

    @property
    def diffusion(self) -> DiffusionConfig:
        return self.character.diffusion

    def total_updates(self, role: str) -> int:
        start, steps = self.options.trajectory.steps, self.stage.steps
        updates = -(-(steps - self.options.generator_from) // self.options.critic_per_generator)
        return {"trajectory": start, "critic": steps - start}.get(role, updates)

    @property
    def starting(self) -> bool:
        """Whether this iteration still belongs to the student's start."""
        return self.iteration < self.options.trajectory.steps

    def begins_iteration(self) -> bool:
        """:attr:`starting`, at the beginning of a ``training_step``: what the start needed is freed when it is over."""
        if self.iteration == self.options.trajectory.steps > 0:
            self.forget_optimizer("trajectory")
        return self.starting

    def keeps_time(self, role: str) -> bool:
        return role == ("trajectory" if self.starting else self.clock_role)

    @property
    def generator_updates(self) -> int:
        """Updates of the student in either way, which its average follows."""
        return super().generator_updates + self.updates.get("trajectory", 0)

    @property
    def generator_turn(self) -> bool:
        """Whether this iteration also updates the student (iterations 0, 5, 10, ... of the default)."""
        since = self.iteration - self.options.generator_from
        return since >= 0 and since % self.options.critic_per_generator == 0

    def exit_step(self) -> int:
        """The exit step of this iteration, the same on all ranks."""
        return int(scalar(self.seed, self.iteration, "exit") * self.plan.steps)

    def weighted(self, losses: MatchingLosses) -> Tensor:
        """``sum_m lambda_m L_m``, averaged over the batch."""
        return (self.options.video_weight * losses.video + self.options.audio_weight * losses.audio).mean()

    def trajectory_backward(self, conditions: Conditions, prefix: Prefix, untold: Prefix | None, clean: Latents,
                            weight: Tensor, key: NoiseKey, exit_step: int, share: float, sets: Sequence[str] = ()
                            ) -> tuple[Tensor, dict[str, Any]]:
        """Teach the student where the teacher leads from one of its noise levels; returns the loss and its figures.

        ``untold``, here and below: the prefix without text, where the student has heard it; else it is made if needed.
        ``sets``: of a mixture, that of each sample.
        """
        options = self.options.trajectory
        with at_work("the student's start (the teacher's ODE, the student's forward pass)"):
            video, audio = trajectory_losses(
                self.student, self.teacher, self.orchestrator, conditions, prefix, clean, weight, key,
                self.plan, exit_step, self.diffusion, options.teacher_steps, untold)
        loss = (options.video_weight * video + options.audio_weight * audio).mean()
        self.role_backward("trajectory", loss * share)
        return loss.detach(), {"train/trajectory_video": video.mean(), "train/trajectory_audio": audio.mean(),
                               **by_group("train/trajectory_video", video, sets),
                               **by_group("train/trajectory_audio", audio, sets)}

    def finish_trajectory(self, loss: Tensor, values: dict[str, Any], keys: list[str]) -> None:
        """Step the student when its backward passes are done, and log."""
        figures = self.step_role("trajectory", loss, keys)
        self.log_step({**values, **figures}, len(keys))

    def generator_backward(self, sample: Latents | None, prefix: Prefix, untold: Prefix | None, conditions: Conditions,
                           weight: Tensor, key: NoiseKey, share: float) -> tuple[Tensor, dict[str, Any]]:
        """Score a sample that carries gradient, and run its backward pass; returns the loss and its figures."""
        assert sample is not None, "the generator learns at an exit step"
        with at_work("scoring by teacher and critic"), torch.no_grad():
            if self.diffusion.text_null and untold is None:
                untold = self.orchestrator.untold_prefix(conditions)
        scored = renoise(sample, self.orchestrator, prefix, key, self.diffusion,
                         untold if self.diffusion.text_null else None)
        with at_work("scoring by teacher and critic"):
            losses = generator_losses(sample, scored, self.teacher, self.critic, conditions, weight, self.diffusion)
        loss = self.weighted(losses)
        self.role_backward("student", loss * share)
        return loss.detach(), {"train/generator": loss, "train/dmd_gradient_video":
                               losses.gradient_video.mean(),
                               "train/dmd_gradient_audio": losses.gradient_audio.mean()}

    def critic_backward(self, sample: Latents | None, prefix: Prefix, conditions: Conditions, weight: Tensor,
                        key: NoiseKey, share: float, sets: Sequence[str] = ()) -> tuple[Tensor, dict[str, Any]]:
        """Train the critic on a sample without gradient; returns the loss and its figures.

        ``sets``: of a mixture, that of each sample.
        """
        assert sample is not None, "the critic learns what the exit step made"
        sample = sample.detach()
        scored = renoise(sample, self.orchestrator, prefix, key, self.diffusion)
        with at_work("the critic's forward pass"):
            losses = critic_losses(self.critic, sample, scored, conditions, weight)
        loss = self.weighted(losses)
        self.role_backward("critic", loss * share)
        return loss.detach(), {"train/critic": loss, "train/critic_video": losses.video.mean(),
                               "train/critic_audio": losses.audio.mean(),
                               **by_group("train/critic_audio", losses.audio, sets),
                               **by_group("train/critic_video", losses.video, sets),
                               **levels("train/critic_audio", losses.audio, losses.sigma),
                               **levels("train/critic_video", losses.video, losses.sigma)}

    def finish(self, generator: Tensor | None, critic: Tensor, values: dict[str, Any], keys: list[str]) -> None:
        """Step the roles whose backward passes are done, and log."""
        figures: dict[str, float] = {}
        if generator is not None:
            figures |= self.step_role("student", generator, keys)
        figures |= self.step_role("critic", critic, keys)
        self.log_step({**values, **figures,
                       "progress/generator_updates": float(self.updates.get("student", 0))},
                      len(keys))

    def checkpoint_state_dict(self, keep: bool = True) -> dict[str, Any]:
        """Beside the weights, how adapters are scaled and where they belong: enough to lay them on their teacher."""
        state = super().checkpoint_state_dict(keep)
        return state | {"adapters": asdict(self.options.lora)} if self.options.roles == "lora" else state

    def validation_step(self, batch: ChunkBatch | RolloutBatch, batch_index: int) -> None:
        self.held_out.add(batch, batch_index)

    def on_validation_epoch_end(self) -> None:
        with self.trainer.precision_plugin.val_step_context():  # which Lightning leaves before this hook
            streams = self.fixed.go_on()
        self.pointer_maps = self.fixed.pointer_maps
        self.log_dict(self.held_out.scores() | streams, sync_dist=True)

    def on_fit_start(self) -> None:
        """Before any callback's ``on_train_start``: one restores the streams' memory there, another validates."""
        if self.fixed.memory is None:
            self.fixed.begin(self.data().fixed_streams(2).to(self.device))

    def stream_memories(self) -> dict[str, StreamMemory]:
        """Memory of the fixed validation streams, which speak on from validation to validation."""
        return {"validation": self.fixed.memory} if self.fixed.memory is not None else {}

    def probe_stream(self, chunks: int) -> Iterator[Any]:
        """A fixed stream to time, decoded."""
        return self.fixed.probe(chunks)

    def sample_videos(self, averaged: Callable[[], AbstractContextManager[None]] | None) -> list[SampleVideo]:
        """Reference | teacher | student | averaged student, at fixed prompts and noise; the sound is the last one's."""
        systems: dict[str, System] = {"teacher": (self.teacher, self.held_out.full, nullcontext),
                                      "student": (self.student, self.plan, nullcontext)}
        if averaged is not None:
            systems["averaged"] = (self.student, self.plan, averaged)
        return self.fixed.sample_videos(systems)

    def owned_weight(self, like: Tensor, chunk: int) -> Tensor:
        """(B, Ta) weights of a generated chunk's audio latents: 1 for owned, 0 for surplus."""
        owned = self.character.clock.audio_owned(chunk)
        return (torch.arange(like.shape[1], device=like.device) < owned).float().expand(like.shape[0], -1)
