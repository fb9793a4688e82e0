"""perf/step_s and its kin: how long steps take, and how much of that is waiting for data."""

from __future__ import annotations

import statistics
import time
from typing import Any

import lightning as L
import torch

from callbacks.step_logger import log_now


class StepTime(L.Callback):
    """Figures over the steps since the last logged one; validation, probes and checkpoints are not part of them.

    perf/step_s: mean seconds of a step; perf/data_s: median seconds that a step waited for its batch (the median,
    since a probe or a sample between two steps counts as waiting); perf/memory_gib: most GPU memory used. Stands after
    the checkpoint callback and before the callbacks that run the model.
    """

    def __init__(self) -> None:
        self._ended: float | None = None
        self._started = 0.0
        self._steps, self._work = 0, 0.0
        self._waits: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self._started = time.perf_counter()
        if self._ended is not None:
            self._waits.append(self._started - self._ended)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        now = time.perf_counter()
        self._steps, self._work = self._steps + 1, self._work + now - self._started
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            figures = {"perf/step_s": self._work / self._steps, "perf/data_s": statistics.median(self._waits or [0.0])}
            if torch.cuda.is_available():
                figures["perf/memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
            log_now(trainer, figures)
            self._steps, self._work, self._waits = 0, 0.0, []
        self._ended = time.perf_counter()

    def on_validation_start(self, *_: Any) -> None:
        self._ended = None
