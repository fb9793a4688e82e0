"""Validation at the stage's start and end, whatever the cadence between: the two figures that a stage is judged by."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.utilities.model_helpers import is_overridden


class ValidationEnds(L.Callback):
    """Validates before the first step of a fresh stage, and after its last.

    The last one is Lightning's own: it validates when it is asked to stop. ``begun`` is false for a resumed stage,
    whose start has been validated already.
    """

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.global_step or not trainer.enable_validation or not is_overridden("validation_step", module):
            return
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True
