"""Optimisers of a role: AdamW, or Muon for block matrices with AdamW for the rest, as one (small_models, point 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_modules.batched_muon import BatchedMuon
from lightning_modules.config import OptimizerConfig


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimisers behind one interface: one step, one state, one list of parameter groups."""

    def __init__(self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], config: OptimizerConfig) -> None:
        self.muon = BatchedMuon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay, adjust_lr_fn="original")
        self.adamw = torch.optim.AdamW(others, lr=config.lr, betas=(config.betas[0], config.betas[1]),
                                       weight_decay=config.weight_decay, fused=one_kernel(others))
        super().__init__([*matrices, *others], {})
        self.param_groups = self.muon.param_groups + self.adamw.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = closure() if closure is not None else None
        self.muon.step()
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
        self.param_groups = self.muon.param_groups + self.adamw.param_groups


def is_block_matrix(name: str, parameter: Tensor) -> bool:
    """Matrices inside transformer blocks (``blocks.`` of the denoiser, ``layers.`` of the LM) go to Muon."""
    return parameter.ndim == 2 and ("blocks." in name or "layers." in name)


def build_optimizer(modules: Iterable[tuple[nn.Module, float]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """One optimiser over (module, learning-rate factor) pairs; every group keeps its full rate as ``full_lr``."""
    matrices: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for module, factor in modules:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        block = [p for n, p in named if config.kind == "muon" and is_block_matrix(n, p)]
        rest = [p for n, p in named if not (config.kind == "muon" and is_block_matrix(n, p))]
        if block:
            matrices.append({"params": block, "lr": config.muon_lr * factor, "full_lr": config.muon_lr * factor})
        if rest:
            others.append({"params": rest, "lr": config.lr * factor, "full_lr": config.lr * factor})
    if matrices:
        return MuonWithAdamW(matrices, others, config)
    first, second = config.betas
    return torch.optim.AdamW(others, lr=config.lr, betas=(first, second), weight_decay=config.weight_decay,
                             fused=one_kernel(others))


def one_kernel(groups: list[dict[str, Any]]) -> bool | None:
    """AdamW in one pass over weights and states, where all lie on a GPU; None: as torch chooses."""
    return all(p.is_cuda for group in groups for p in group["params"]) or None


def clipped_norm(optimizer: Any, parameters: list[Tensor], limit: float) -> Tensor:
    """Norm of the gradients over all ranks' parts, before they are clipped to ``limit``."""
    if hasattr(optimizer, "gradient_norm"):  # an engine, which has the gradients and clips them in its step
        return optimizer.gradient_norm(limit)
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def drop_gradients(optimizer: Any, parameters: list[Tensor]) -> None:
    """Forget this iteration's gradients: the next step changes nothing."""
    if hasattr(optimizer, "drop_gradients"):
        optimizer.drop_gradients()
    for p in parameters:
        p.grad = None


def learning_rate_factor(update: int, total: int, config: OptimizerConfig) -> float:
    """Factor on the full rate at ``update`` of ``total``: warm-up, constant, then linear fall; a pure function."""
    factor = min(1.0, (update + 1) / config.warmup) if config.warmup else 1.0
    start = config.decay_from * total
    if update > start and total > start:
        factor *= 1 - (1 - config.decay_to) * min(1.0, (update - start) / (total - start))
    return factor


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Scale every group's full rate; returns the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])
