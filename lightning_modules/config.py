"""Options of the four training stages. Plain values, free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from streamchar.denoiser.adapter_config import AdapterConfig
from streamchar.objectives.drops import DropConfig


@dataclass
class OptimizerConfig:
    """One role's optimiser."""

    kind: str = "adamw"
    """``adamw``, or ``muon``: Muon for the matrices inside blocks and AdamW for everything else."""
    lr: float = 1e-5
    """Learning rate of AdamW."""
    muon_lr: float = 0.01
    """Learning rate of Muon's matrices, where ``kind=muon``."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW betas."""
    weight_decay: float = 0.01
    """Weight decay."""
    clip: float = 10.0
    """Largest gradient norm."""
    warmup: int = 0
    """Updates of linear warm-up."""
    decay_from: float = 1.0
    """Fraction of the stage after which the rate falls linearly to ``decay_to`` times its value; 1 = constant."""
    decay_to: float = 0.03
    """See ``decay_from``."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if self.kind not in ("adamw", "muon"):
            found.append(f"{where}.kind={self.kind!r} must be 'adamw' or 'muon'")
        if self.lr <= 0 or self.clip <= 0:
            found.append(f"{where}: lr={self.lr} and clip={self.clip} must be positive")
        return found


@dataclass
class StageConfig:
    """What all training stages have in common."""

    steps: int = 1000
    """Iterations; ``global_step`` ends at exactly this number."""
    batch_size: int = 0
    """Samples per rank and iteration; 0: ``data.batch_size``."""
    accumulate: int = 1
    """Micro-batches that the samples (or streams) of one iteration are split into, to save memory; the update stays the
    same. ``train/loss`` is of all samples, other logged figures are of the last micro-batch."""
    ema_decay: float = 0.998
    """Decay of the averaged weights, counted in updates of the (generator) role."""
    ema_start: int = 0
    """Updates before averaging starts; until then the average equals the weights."""
    max_nonfinite: int = 10
    """Non-finite iterations in a row before the run stops."""
    val_every: int = 0
    """Iterations between validations of this stage; 0: ``trainer.val_every``."""
    compile: bool = False
    """``trainer.compile`` for this stage alone: a minute of compiling pays where steps are many."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = [] if self.accumulate >= 1 else [f"{where}.accumulate={self.accumulate} must be at least 1"]
        if self.val_every < 0:
            found.append(f"{where}.val_every={self.val_every} must not be negative")
        return found

    def average_from(self) -> int:
        """Updates of the averaged role before averaging starts."""
        return self.ema_start


@dataclass
class OrchestratorStage(StageConfig):
    """Stage 1: the orchestrator on speech alone, with its light flow-matching head and the pointer's loss."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=6e-5))
    """Optimiser of the orchestrator."""
    pointer_weight: float = 0.5
    """Weight of the pointer's loss."""
    pointer_share: float = 1.0
    """Share of each batch that the pointer's loss sees; the pointer learns long before speech, and its pass costs a
    quarter of a step."""
    draws: int = 1
    """Noise levels, and noises, of each item in a step; its prefix, more than half of a pass, is run once for all."""
    drops: DropConfig = field(default_factory=DropConfig)
    """Noise on history, and how often the text is hidden; the other groups belong to the denoiser."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = super().problems(where)
        if self.draws < 1:
            found.append(f"{where}.draws={self.draws} must be at least 1")
        if not 0 < self.pointer_share <= 1:
            found.append(f"{where}.pointer_share={self.pointer_share} must be above 0 and at most 1")
        return found


@dataclass
class TeacherStage(StageConfig):
    """Stage 2: joint flow matching of denoiser and orchestrator."""

    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser of denoiser and orchestrator."""
    orchestrator_lr_scale: float = 1.0
    """Factor on the learning rates of the orchestrator's parameters; 0 freezes it as stage ``orchestrator`` left it."""
    video_weight: float = 1.0
    """Weight of the video loss."""
    audio_weight: float = 1.0
    """Weight of the audio loss."""
    head_weight: float = 0.25
    """Weight of the orchestrator head's own flow-matching loss, which keeps c_a speaking."""
    pointer_weight: float = 0.5
    """Weight of the pointer's loss."""
    drops: DropConfig = field(default_factory=DropConfig)
    """Drops of condition groups and noise on them."""


@dataclass
class TrajectoryConfig:
    """The student's start: regression on the teacher's ODE before distribution matching.

    To its end from noised real chunks (in Stage II: from its own chunks, noised again, after its own history); or, with
    ``diffusion.few_step_sampler=euler``, to the student's next level from where its own steps have come to.
    """

    steps: int = 0
    """Iterations at the start of the stage, before any of the critic; 0: none."""
    teacher_steps: int = 8
    """Euler steps of the teacher from noise to its end; of a part of the way proportionally fewer, but at least 2."""
    video_weight: float = 1.0
    """Weight of the video loss."""
    audio_weight: float = 1.0
    """Weight of the audio loss."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(decay_from=0.5))
    """Optimiser of the student in these iterations."""


@dataclass
class MatchingStage(StageConfig):
    """Options of distribution matching, shared by Stage I and Stage II."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        if self.roles not in ("full", "lora"):
            return [f"{where}.roles={self.roles!r} must be 'full' or 'lora'"]
        if self.critic_per_generator < 1:
            return [f"{where}.critic_per_generator={self.critic_per_generator} must be at least 1"]
        if not 0 <= self.generator_from < self.steps:
            return [f"{where}.generator_from={self.generator_from} must be 0 or more and below steps={self.steps}"]
        found = super().problems(where)
        if self.trajectory.steps < 0 or self.trajectory.teacher_steps < 1:
            found.append(f"{where}.trajectory needs steps of 0 or more and teacher_steps of 1 or more, got "
                         f"{self.trajectory.steps} and {self.trajectory.teacher_steps}")
        if self.trajectory.steps > self.generator_from:
            found.append(f"{where}.trajectory.steps={self.trajectory.steps} must not exceed generator_from="
                         f"{self.generator_from}: distribution matching begins after it")
        return found

    def average_from(self) -> int:
        return self.trajectory.steps + self.ema_start

    roles: str = "full"
    """``full``: student and critic are models of their own beside the teacher; ``lora``: both are adapters on the one
    frozen copy of the teacher, and only these are trained, averaged and stored."""
    lora: AdapterConfig = field(default_factory=AdapterConfig)
    """The adapters of student and critic, where ``roles=lora``; learning rates are then about ten times higher."""
    trajectory: TrajectoryConfig = field(default_factory=TrajectoryConfig)
    """The student's start before distribution matching."""

    generator: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-6, betas=[0.0, 0.999]))
    """Optimiser of the student."""
    critic: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=4e-7, betas=[0.0, 0.999]))
    """Optimiser of the critic (fake score)."""
    critic_per_generator: int = 5
    """Iterations per generator update: every iteration updates the critic, each 5th the generator too."""
    generator_from: int = 0
    """First iteration that may update the generator. Before it the critic learns alone: it begins as the teacher's
    copy, so that until it knows the student's samples the difference of the two scores is noise, and the optimiser
    would follow it at full rate."""
    video_weight: float = 1.0
    """lambda of video."""
    audio_weight: float = 1.0
    """lambda of audio."""
    ema_decay: float = 0.99
    """Decay of the student's averaged weights, in generator updates."""
    ema_start: int = 40
    """Generator update of matching at which averaging starts (iteration 200)."""


@dataclass
class DmdStage(MatchingStage):
    """Stage I: distribution matching on single chunks with real conditions."""

    steps: int = 600
    """Iterations: those of the student's start, then critic updates."""
    drops: DropConfig = field(default_factory=lambda: DropConfig(condition=0.0))
    """Drops of condition groups and noise on them; c_a is never dropped for the student."""


@dataclass
class RolloutStage(MatchingStage):
    """Stage II: distribution matching on the student's own chunks."""

    def problems(self, where: str) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = super().problems(where)
        if not 1 <= self.min_chunks <= self.first_max_chunks <= self.max_chunks:
            found.append(f"{where} needs 1 <= min_chunks <= first_max_chunks <= max_chunks, got "
                         f"{self.min_chunks}, {self.first_max_chunks}, {self.max_chunks}")
        return found

    steps: int = 400
    """Iterations (critic updates)."""
    min_chunks: int = 2
    """Smallest number of chunks K of a rollout; 1 together with ``max_chunks=1`` is the paper's failing ablation."""
    first_max_chunks: int = 4
    """Largest K at the start."""
    max_chunks: int = 8
    """Largest K at the end of the stage; it grows linearly."""
    persistent: bool = True
    """Keep the streams' memory across iterations, after ``warmup_iterations``."""
    warmup_iterations: int = 20
    """Iterations with fresh streams before memory persists."""
    reset_chunks: int = 64
    """Chunks after which a persistent stream starts afresh."""
    every_chunk: bool = False
    """Gradient on every chunk of a rollout (each with its own backward) instead of one uniformly drawn chunk."""
    exit_sample_feeds_memory: bool = False
    """Feed the exit step's estimate to memory instead of the fully denoised sample (not recommended)."""

