"""Bytes on one rank's device that last from step to step: weights, gradients' buffers, optimiser states."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pipelines.config.schema import RunConfig
from pipelines.dry_run.roles import Role

FP32 = 4


@dataclass(frozen=True)
class World:
    """Ranks, how they share the work, and over how many one copy is shared out."""

    ranks: int
    sharding: str
    shard_ranks: int


def world(cfg: RunConfig) -> World:
    """That of the configured trainer; numbers that Slurm gives count as 1."""
    ranks = max(1, cfg.trainer.devices) * max(1, cfg.trainer.nodes)
    strategy = cfg.trainer.strategy
    if strategy == "deepspeed":
        sharding = f"ZeRO-{cfg.trainer.zero_stage}"
    else:
        sharding = ("ddp" if ranks > 1 else "single") if strategy == "auto" else strategy
    return World(ranks, sharding, cfg.trainer.shard_ranks or ranks)


def bytes_per_rank(role: Role, model: torch.nn.Module, ranks: int, sharding: str,
                   frozen: str = "auto") -> tuple[int, int, int]:
    """Bytes of weights, gradients and optimiser states on one rank's device; fp32 masters throughout.

    ranks: those that share one copy out. fsdp2 and ZeRO-3 cut all three by their number, ZeRO-2 gradients and states,
    ZeRO-1 the states; ddp none, and its buckets are a second copy of the gradients. ZeRO keeps one more copy of the
    weights it trains, cut like a state.
    frozen: ``trainer.frozen``, for roles that are not trained (averages follow their role).
    """
    own = role.parameters(model)
    count = sum(size for _, size, _ in own)
    weights, gradients, states = FP32 * count, 0, 0
    if role.trained:
        gradients = FP32 * count * (2 if sharding == "ddp" else 1)
        # Muon keeps one state for a block's matrix, AdamW two for everything.
        matrices = sum(size for _, size, matrix in own if matrix)
        states = FP32 * (2 * count - (matrices if role.optimizer == "muon" else 0))
    cut = {"fsdp2": 3, "ZeRO-3": 3, "ZeRO-2": 2, "ZeRO-1": 1}.get(sharding, 0)
    if role.trained and sharding.startswith("ZeRO"):
        states += FP32 * count
    if not role.trained and cut and not role.average:
        cut = {"replicate": 0, "shard": 3, "offload": 3, "auto": 3 if sharding == "fsdp2" else 0}[frozen]
        weights = 0 if frozen == "offload" else weights
    return (weights // (ranks if cut >= 3 else 1), gradients // (ranks if cut >= 2 else 1),
            states // (ranks if cut >= 1 else 1))
