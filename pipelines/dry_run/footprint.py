"""What a stage takes on one rank's device: bytes per role, and the fullest moment of its iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipelines.config.geometry import Geometry, geometry
from pipelines.config.schema import RunConfig
from pipelines.dry_run.activations import activation_bytes, copy_bytes, waiting_bytes
from pipelines.dry_run.memory import World, bytes_per_rank, world
from pipelines.dry_run.roles import Role, build_on_meta, roles


@dataclass(frozen=True)
class RoleBytes:
    """One role's bytes on a rank. copies: weights in bf16 that last for a step; activations: of a micro-batch,
    and ``late`` what is left of them when the backward pass of its last part (a denoiser's step, an orchestrator's
    block) is done. waiting: gradients of the weights, which the earlier parts use too: they wait for one another,
    whole and mostly in the type of products, before they are added to ``gradients`` or shared out."""

    role: Role
    weights: int
    gradients: int
    optimizer: int
    copies: int
    activations: int
    late: int
    waiting: int

    @property
    def lasting(self) -> int:
        """What is there all the time."""
        return self.weights + self.optimizer


@dataclass(frozen=True)
class Footprint:
    """A stage's roles, and its fullest moment: its name and the bytes on the device then."""

    roles: list[RoleBytes]
    moment: str
    peak: int


def footprint(cfg: RunConfig, stage: str, models: dict[str, torch.nn.Module] | None = None) -> Footprint:
    """Sizes of a training stage; of any other, its weights alone."""
    shape, where = geometry(cfg), world(cfg) if hasattr(cfg.stages, stage) else World(1, "single", 1)
    models = models or build_on_meta(cfg, shape)
    found = [_role_bytes(cfg, shape, stage, role, models[role.model], where) for role in roles(cfg, stage)]
    always = sum(r.lasting + r.copies for r in found)
    if not hasattr(cfg.stages, stage):
        return Footprint(found, "weights", always)
    if where.sharding == "ddp":
        always += sum(r.gradients // 2 for r in found)  # the buckets
    moments = _moments(cfg, stage, {r.role.name: r for r in found}, where)
    moment = max(moments, key=lambda name: moments[name])
    return Footprint(found, moment, always + moments[moment])


def _role_bytes(cfg: RunConfig, shape: Geometry, stage: str, role: Role, model: torch.nn.Module,
                where: World) -> RoleBytes:
    lasting = bytes_per_rank(role, model, where.shard_ranks, where.sharding, cfg.trainer.frozen)
    if not hasattr(cfg.stages, stage):
        return RoleBytes(role, *lasting, 0, 0, 0, 0)
    kept = activation_bytes(cfg, shape, stage, role)
    return RoleBytes(role, *lasting, copy_bytes(cfg, role, model, where), kept.whole, kept.late,
                     waiting_bytes(cfg, role, model, where))


def _moments(cfg: RunConfig, stage: str, found: dict[str, RoleBytes], where: World) -> dict[str, int]:
    """Bytes beside what is always there."""
    trained = [r for r in found.values() if r.role.trained]
    own = {r.role.name: r.gradients // (2 if where.sharding == "ddp" else 1) for r in trained}
    held = sum(own.values())
    # AdamW takes the roots of all second moments at once; Muon and ZeRO go piece by piece.
    roots = max(r.optimizer // 2 if r.role.optimizer == "adamw" and not where.sharding.startswith("ZeRO") else 0
                for r in trained)
    options = getattr(cfg.stages, stage)
    parts = options.accumulate > 1 or (stage == "rollout" and options.every_chunk)
    before = dict.fromkeys(own, held) if parts else {"student": 0, "critic": own.get("student", 0)}
    backward = {}
    for names in (["student"], ["critic"]) if "critic" in own else (list(own),):
        moment, reached = f"{stage if len(names) > 1 else names[0]}'s backward", before.get(names[0], 0)
        scored = found["teacher"].activations if names == ["student"] else 0
        most = reached + scored + sum(found[n].activations for n in names)
        for i, name in enumerate(names):
            rest = sum(found[n].activations for n in names[i + 1:])
            most = max(most, reached + found[name].waiting + found[name].late + rest)
            reached += 0 if parts else own[name]
        backward[moment] = most
    return {"optimiser's step": held + roots} | backward
