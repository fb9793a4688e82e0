"""Which weights a stage holds, and the models they belong to, on the meta device: shapes without memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from pipelines.config.geometry import Geometry
from pipelines.config.schema import RunConfig
from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.model import Denoiser
from streamchar.orchestrator.model import Orchestrator


@dataclass(frozen=True)
class Role:
    """One set of weights in a stage. ``trained``: with gradients and optimiser states. ``rank``: of adapters on the
    teacher's weights, which are then all that it has of its own."""

    name: str
    model: str
    trained: bool
    optimizer: str = "adamw"
    rank: int = 0
    targets: tuple[str, ...] = ()

    @property
    def average(self) -> bool:
        """Whether it is the average of a trained role."""
        return self.name.endswith("ema")

    def parameters(self, model: torch.nn.Module) -> list[tuple[str, int, bool]]:
        """(name, elements, whether a block's matrix) of everything that is the role's own."""
        found = [(n, p.numel(), is_block_matrix(n, p)) for n, p in model.named_parameters()]
        if not self.rank:
            return found
        return [(n, self.rank * sum(p.shape), True) for n, p in model.named_parameters()
                if is_block_matrix(n, p) and n.split(".")[-2] in self.targets]


def roles(cfg: RunConfig, stage: str) -> list[Role]:
    """Which weights a stage holds in memory."""
    if stage == "orchestrator":
        kind = cfg.stages.orchestrator.optimizer.kind
        return [Role("orchestrator", "orchestrator", True, kind), Role("ema", "orchestrator", False)]
    if stage == "teacher":
        options = cfg.stages.teacher
        learns, kind = options.orchestrator_lr_scale > 0, options.optimizer.kind
        found = [Role("denoiser", "denoiser", True, kind), Role("orchestrator", "orchestrator", learns, kind),
                 Role("denoiser ema", "denoiser", False), Role("orchestrator ema", "orchestrator", False)]
        return found if learns else found[:3]
    if stage in ("dmd", "rollout"):
        return _distillation(cfg, stage)
    return [Role("denoiser", "student", False), Role("orchestrator", "orchestrator", False)]


def _distillation(cfg: RunConfig, stage: str) -> list[Role]:
    options = getattr(cfg.stages, stage)
    student = options.generator.kind
    if options.trajectory.steps:  # the larger of two optimisers that never live together
        student = max(student, options.trajectory.optimizer.kind, key=lambda kind: kind == "adamw")
    lora = options.roles == "lora"
    rank, targets = (options.lora.rank, tuple(options.lora.targets)) if lora else (0, ())
    model = "denoiser" if lora else "student"
    return [Role("student", model, True, student, rank, targets),
            Role("critic", "denoiser", True, options.critic.kind, rank, targets),
            Role("student ema", model, False, "adamw", rank, targets),
            Role("teacher", "denoiser", False), Role("orchestrator", "orchestrator", False)]


def build_on_meta(cfg: RunConfig, shape: Geometry) -> dict[str, torch.nn.Module]:
    """``denoiser``, ``student`` and ``orchestrator`` with the run's sizes."""
    denoiser = with_channels(cfg, shape)
    with torch.device("meta"):
        return {
            "denoiser": Denoiser(denoiser, shape.clock, cfg.window),
            "student": Denoiser(cfg.student.of(denoiser), shape.clock, cfg.window),
            "orchestrator": Orchestrator(cfg.orchestrator, shape.clock, shape.audio_channels, denoiser.width),
        }


def with_channels(cfg: RunConfig, shape: Geometry) -> DenoiserConfig:
    """The denoiser's architecture with the codecs' channels."""
    return replace(cfg.denoiser, video_channels=shape.video_channels, audio_channels=shape.audio_channels)


def is_block_matrix(name: str, parameter: torch.nn.Parameter) -> bool:
    """Matrices that Muon moves and adapters can be laid on."""
    return parameter.ndim == 2 and ("blocks." in name or "layers." in name)
