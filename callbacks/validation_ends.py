"""Validation at the stage's start and end, whatever the cadence between: the two figures that a stage is judged by."""

from __future__ import annotations

import math
from typing import Any

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden


class ValidationEnds(L.Callback):
    """Validates before the first step of a fresh stage, and after its last; and, where a stage goes on, what a process
    that had to stop at once had no time for.

    The last one is Lightning's own: it validates when it is asked to stop. Without the one in between, the streams that
    validations carry on would be a validation behind for ever. Stands after the callback that stops.
    """

    def __init__(self) -> None:
        self.owed = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        begins = not trainer.global_step
        if (begins or self.owed) and trainer.enable_validation and is_overridden("validation_step", module):
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
        self.owed = False

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True
        left_out = trainer.should_stop and not trainer.limit_val_batches
        self.owed = left_out and trainer.global_step % (trainer.val_check_batch or math.inf) == 0

    def state_dict(self) -> dict[str, Any]:
        return {"owed": self.owed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.owed = bool(state_dict.get("owed", False))
