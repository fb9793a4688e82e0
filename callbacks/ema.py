"""Averaged weights: per role, fp32, counted in updates of the generator, swapped in for validation and samples.

Lightning's own averaging takes the whole module and counts every step; here frozen parts cost nothing and five critic
updates do not count as five steps of the student. Where a model is shared out over ranks, each averages its own part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor

from callbacks.protocols import Averaged
from streamchar.distributed.full_state import gathered, local, part_of, refresh, wrong_shapes
from streamchar.errors import CheckpointError


class AveragedWeights(L.Callback):
    """Exponential moving average of a module's roles (protocol :class:`Averaged`).

    ``shadow = decay * shadow + (1 - decay) * weight`` after every update beyond ``start``; until then it equals the
    weights.

    Args:
        decay: in [0, 1).
        start: update after which averaging begins.
    """

    def __init__(self, decay: float, start: int = 0) -> None:
        self.decay, self.start = decay, start
        self.updates = 0
        self.shadow: dict[str, dict[str, Tensor]] = {}
        self._restored: dict[str, dict[str, Tensor]] = {}
        self._parameters: dict[str, dict[str, Tensor]] = {}
        self._kept: dict[str, dict[str, Tensor]] | None = None

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not isinstance(module, Averaged):
            raise TypeError(f"{type(module).__name__} has no ema_roles, generator_updates and role_parameters; "
                            "turn the average off with callbacks.ema=false")
        restored, self._restored, self.shadow = self._restored, {}, {}
        # Asked for once: walking through a model at every update costs more than averaging a small one.
        self._parameters = {role: module.role_parameters(role) for role in module.ema_roles}
        for role, own in self._parameters.items():
            self.shadow[role] = {name: local(p).float().clone() for name, p in own.items()}
            for name, value in restored.get(role, {}).items():
                self.shadow[role][name].copy_(part_of(value, own[name]))

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        updates = cast(Averaged, module).generator_updates
        if updates > self.updates:
            self.updates = updates
            self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after update number ``self.updates``."""
        weight = 1.0 if self.updates <= self.start else 1.0 - self.decay
        for role, shadow in self.shadow.items():
            own = list(shadow.values())
            now = [local(self._parameters[role][name]).float() for name in shadow]
            if weight == 1.0:
                torch._foreach_copy_(own, now)
            else:
                torch._foreach_lerp_(own, now, weight)

    @contextmanager
    def swapped(self, module: L.LightningModule) -> Iterator[None]:
        """The averaged weights in the module's place, exactly undone afterwards; nests."""
        if self._kept is not None:
            yield
            return
        self._swap_in()
        try:
            yield
        finally:
            self._swap_out()

    @torch.no_grad()
    def _swap_in(self) -> None:
        self._kept = {}
        for role, shadow in self.shadow.items():
            parameters = self._parameters[role]
            self._kept[role] = {name: local(parameters[name]).clone() for name in shadow}
            _put(parameters, shadow)

    @torch.no_grad()
    def _swap_out(self) -> None:
        kept, self._kept = self._kept or {}, None
        for role, values in kept.items():
            _put(self._parameters[role], values)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._swap_in()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._swap_out()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._swap_out()

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["ema"] = {role: {"updates": self.updates, "weights": gathered(
            shadow, trainer.is_global_zero, self._parameters[role])} for role, shadow in self.shadow.items()}

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        saved = checkpoint.get("ema", {})
        assert isinstance(module, Averaged)
        for role in module.ema_roles:
            own, given = module.role_parameters(role), saved.get(role, {}).get("weights", {})
            wrong = sorted(set(own) ^ set(given)) if given else []
            if wrong := wrong + wrong_shapes(own, given):
                raise CheckpointError(f"averaged weights of {role!r} in the checkpoint are of another architecture "
                                      f"({wrong[0]} differs); use the checkpoint's own config.yaml or another name=")
            if given:
                self._restored[role] = dict(given)
                self.updates = int(saved[role]["updates"])


def _put(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Write this rank's parts into parameters."""
    for name, value in values.items():
        local(parameters[name]).copy_(value)
    refresh(parameters[name] for name in values)
