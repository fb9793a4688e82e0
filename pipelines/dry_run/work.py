"""Floating-point operations of one sample in one iteration, averaged over exit steps, chunks and critic's turns."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.config.geometry import Geometry
from pipelines.config.schema import RunConfig
from pipelines.dry_run.roles import with_channels
from streamchar.denoiser.flops import context_backward_flops, context_flops, step_flops
from streamchar.orchestrator.size import block_flops, prefix_flops

_AGAIN = {"keep": 0.0, "selective": 0.5, "recompute": 1.0}
"""Share of a forward pass that the backward pass does once more."""


@dataclass(frozen=True)
class Work:
    """useful: forward and backward of what learns; again: recomputed activations; frozen: all that runs without
    gradient (scoring, the steps before an exit, rollouts, the orchestrator)."""

    useful: float = 0.0
    again: float = 0.0
    frozen: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.useful + other.useful, self.again + other.again, self.frozen + other.frozen)

    def __mul__(self, factor: float) -> Work:
        return Work(self.useful * factor, self.again * factor, self.frozen * factor)


@dataclass(frozen=True)
class Costs:
    """Passes of one denoiser, and how learning from one step costs."""

    context: int
    step: int
    context_backward: int
    again: float
    lora: bool

    def learn(self) -> Work:
        """Context and one step, forward and backward. Adapters spare the gradients of the base's weights."""
        forward = self.context + self.step
        backward = self.context_backward + 2 * self.step
        return Work(forward + backward * (0.5 if self.lora else 1.0), self.again * forward)

    def run(self, steps: float) -> Work:
        """A context and some steps without gradient."""
        return Work(frozen=self.context + steps * self.step)


def costs(cfg: RunConfig, shape: Geometry, stage: str, model: str) -> Costs:
    """Of ``denoiser`` (the teacher's size) or ``student``."""
    sizes = with_channels(cfg, shape)
    sizes = cfg.student.of(sizes) if model == "student" else sizes
    at = sizes, shape.clock, cfg.window, shape.grid
    lora = getattr(getattr(cfg.stages, stage), "roles", "full") == "lora"
    return Costs(context_flops(*at), step_flops(*at), context_backward_flops(*at),
                 _AGAIN[cfg.trainer.activations], lora)


def iteration(cfg: RunConfig, shape: Geometry, stage: str) -> Work:
    """One sample's share of an iteration of a training stage (after a student's start)."""
    prefix, block = _orchestrator(cfg, shape)
    if stage == "orchestrator":
        passes = prefix + block * (cfg.stages.orchestrator.draws + cfg.stages.orchestrator.pointer_share)
        return Work(3 * passes)
    if stage == "teacher":
        learns = cfg.stages.teacher.orchestrator_lr_scale > 0
        own = Work(3 * (prefix + 2 * block)) if learns else Work(frozen=prefix + block)
        return costs(cfg, shape, stage, "denoiser").learn() + own
    options = getattr(cfg.stages, stage)
    turns = 1 / options.critic_per_generator
    critic = costs(cfg, shape, stage, "denoiser").learn() + Work(frozen=block)
    scored = scoring(cfg, shape, stage) * turns
    if stage == "dmd":
        return _single(cfg, shape, turns) + critic + scored
    return _rolled(cfg, shape, turns) + critic + scored * (mean_chunks(cfg) if options.every_chunk else 1.0)


def scoring(cfg: RunConfig, shape: Geometry, stage: str) -> Work:
    """Teacher (with its second branch) and critic score a student's sample."""
    prefix, block = _orchestrator(cfg, shape)
    diffusion, denoiser = cfg.diffusion, costs(cfg, shape, stage, "denoiser")
    branches = 2 if diffusion.guidance_video != 1.0 or diffusion.guidance_audio != 1.0 else 1
    heard = diffusion.few_step_guidance != 1.0  # the student has made the prefix without text already
    untold = (0 if heard else prefix) + block if diffusion.text_null else 0
    return denoiser.run(branches) + denoiser.run(1) + Work(frozen=block + untold)


def mean_chunks(cfg: RunConfig) -> float:
    """Mean length of a rollout over the stage."""
    o = cfg.stages.rollout
    return (o.min_chunks + (o.first_max_chunks + o.max_chunks) / 2) / 2


def _single(cfg: RunConfig, shape: Geometry, turns: float) -> Work:
    """Stage I: one prefix for all, and the student's steps up to an exit, for the critic and at its turn with gradient.
    """
    prefix, block = _student_orchestrator(cfg, shape)
    student, steps = costs(cfg, shape, "dmd", "student"), len(cfg.diffusion.few_steps)
    before = (steps - 1) / 2
    learning = student.run(before) + student.learn() + Work(frozen=(before + 1) * block)
    watched = student.run(before + 1) + Work(frozen=(before + 1) * block)
    return watched + learning * turns + Work(frozen=prefix)


def _rolled(cfg: RunConfig, shape: Geometry, turns: float) -> Work:
    """Stage II: whole chunks, each with a prefix and the pointer's block; of one of them (or each) a step learns."""
    (_, point), (prefix, block) = _orchestrator(cfg, shape), _student_orchestrator(cfg, shape)
    options, student = cfg.stages.rollout, costs(cfg, shape, "rollout", "student")
    steps, chunks = len(cfg.diffusion.few_steps), mean_chunks(cfg)
    run = (steps + 1) / 2 if options.exit_sample_feeds_memory else steps
    learning = student.learn() + Work(frozen=-student.step)
    return ((student.run(run) + Work(frozen=prefix + run * block + point)) * chunks
            + learning * (turns * (chunks if options.every_chunk else 1.0)))


def _student_orchestrator(cfg: RunConfig, shape: Geometry) -> tuple[int, int]:
    """Prefix and block of a student, whose condition may be guided by those without text."""
    prefix, block = _orchestrator(cfg, shape)
    runs = 2 if cfg.diffusion.few_step_guidance != 1.0 else 1
    return runs * prefix, runs * block


def _orchestrator(cfg: RunConfig, shape: Geometry) -> tuple[int, int]:
    at = cfg.orchestrator, shape.clock, cfg.window
    return prefix_flops(*at), block_flops(*at, cfg.denoiser.width)
