"""Bytes that live during a step alone: what passes keep for their backward, scoring's caches, copies in bf16."""

from __future__ import annotations

import torch

from pipelines.config.geometry import Geometry
from pipelines.config.schema import RunConfig
from pipelines.dry_run.memory import FP32, World
from pipelines.dry_run.roles import Role, with_channels
from streamchar.denoiser.activation_bytes import Kept, cache_bytes, kept_bytes
from streamchar.orchestrator.size import block_bytes, pair_bytes, prefix_bytes


def narrow(cfg: RunConfig) -> int:
    """Bytes of a number in matrix products."""
    return 2 if cfg.trainer.precision == "bf16-mixed" else 4


def samples(cfg: RunConfig, stage: str) -> int:
    """Samples of a micro-batch on a rank."""
    options = getattr(cfg.stages, stage)
    size = options.batch_size or cfg.data.batch_size
    return -(-size // options.accumulate)


def activation_bytes(cfg: RunConfig, shape: Geometry, stage: str, role: Role) -> Kept:
    """What a role needs in a step beside its weights, gradients and states.

    A trained one keeps its pass with gradient (a denoiser's: context and one step); a denoiser that only scores or
    samples keeps the keys and values of one context.
    """
    count, n, mode = samples(cfg, stage), narrow(cfg), cfg.trainer.activations
    if role.average:
        return Kept(0, 0)
    if role.model == "orchestrator":
        if not role.trained:
            return Kept(0, 0)
        at = cfg.orchestrator, shape.clock, cfg.window, n, mode
        # The block at the drawn noise levels and, for the pointer, at t = 0; one of them has all gradients made.
        prefix, block = prefix_bytes(*at), block_bytes(*at)
        draws = cfg.stages.orchestrator.draws if stage == "orchestrator" else 1
        return Kept(count * (prefix + (draws + 1) * block),
                    count * (prefix + draws * (block + pair_bytes(*at[:-1]))))
    denoiser = with_channels(cfg, shape)
    sizes = cfg.student.of(denoiser) if role.model == "student" else denoiser
    at_all = sizes, shape.clock, cfg.window, shape.grid, n
    if not role.trained:
        return Kept(count * cache_bytes(*at_all), 0)
    sample = kept_bytes(*at_all, mode, role.rank)
    return Kept(count * sample.whole, count * sample.late)


def copy_bytes(cfg: RunConfig, role: Role, model: torch.nn.Module, where: World) -> int:
    """Copies of weights that last for a step: the blocks that FSDP2 or ZeRO-3 gather, two at a time, with one block's
    whole gradients; and those in bf16 that autocast makes of what learns (of adapters' base once for each pass that is
    kept)."""
    if role.average:
        return 0
    zero = where.sharding == "ZeRO-3" and role.trained
    copies = 0
    if where.sharding == "fsdp2" or (zero and not role.rank):
        copies = 2 * (FP32 if zero else narrow(cfg)) * _largest_block(model)
        if role.trained:
            copies += FP32 * (_adapters_of_a_block(role, model) if role.rank else _largest_block(model))
    if where.sharding == "fsdp2" or narrow(cfg) == FP32 or not role.trained or no_copies(cfg, where):
        return copies
    whole = sum(p.numel() for p in model.parameters())
    if not role.rank:
        return copies + 2 * whole
    passes = 2 if cfg.trainer.activations == "keep" else 0
    return 2 * (passes * whole + sum(size for _, size, _ in role.parameters(model)))


def waiting_bytes(cfg: RunConfig, role: Role, model: torch.nn.Module, where: World) -> int:
    """Gradients of a role's weights while they wait for those of an earlier pass through the model."""
    count = sum(size for _, size, _ in role.parameters(model)) if role.trained else 0
    return count * (FP32 if no_copies(cfg, where) else narrow(cfg))


def no_copies(cfg: RunConfig, where: World) -> bool:
    """Whether linear layers are DeepSpeed's, which keep no weights in bf16 but make gradients float32 at once."""
    return where.sharding == "ZeRO-3" and cfg.trainer.activations != "selective"


def _adapters_of_a_block(role: Role, model: torch.nn.Module) -> int:
    return sum(size for name, size, _ in role.parameters(model) if name.startswith("blocks.0."))


def _largest_block(model: torch.nn.Module) -> int:
    named = dict(model.named_modules())
    blocks = named.get("blocks") or named.get("llm.layers")
    assert blocks is not None
    return max(sum(p.numel() for p in block.parameters()) for block in blocks.children())
