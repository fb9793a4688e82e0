"""``trainer.max_minutes``: end the stage cleanly when its time is over."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning as L

log = logging.getLogger(__name__)


class TimeLimit(L.Callback):
    """Stops training, with a last validation and checkpoint, once ``minutes`` have passed since the stage began here.

    ``stopped`` tells whether that happened. All ranks stop at the same step.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes, self.stopped = minutes, False
        self.began = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        over = time.monotonic() - self.began > 60 * self.minutes
        if trainer.strategy.reduce_boolean_decision(over, all=False) and trainer.global_step < trainer.max_steps:
            self.stopped = True
            trainer.should_stop = True
            log.info("max_minutes=%g are over: stopping at step %d of %d", self.minutes, trainer.global_step,
                     trainer.max_steps)
