"""perf/role_gib_NAME: what each model of a stage occupies on this machine's first rank, with its optimiser's state."""

from __future__ import annotations

from typing import Any

import lightning as L

from callbacks.ema import AveragedWeights
from callbacks.protocols import HasRoles
from callbacks.step_logger import log_now


class RoleMemory(L.Callback):
    """Logs the first row after training's start and after each validation: it hardly changes, and asks every parameter.

    Args:
        average: whose averages are told as ``perf/role_gib_averages``.
    """

    def __init__(self, average: AveragedWeights | None) -> None:
        self.average, self._due = average, False

    def on_train_start(self, *_: Any) -> None:
        self._due = True

    def on_validation_end(self, *_: Any) -> None:
        self._due = True

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        logged = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if not self._due or not logged or not isinstance(module, HasRoles):
            return
        self._due = False
        found = module.bytes_by_role()
        if self.average is not None:
            found["averages"] = sum(t.nbytes for role in self.average.shadow.values() for t in role.values())
        log_now(trainer, {f"perf/role_gib_{name}": size / 2**30 for name, size in found.items()})
