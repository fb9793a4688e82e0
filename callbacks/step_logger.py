"""What our two loggers share: metrics are counted in iterations, one row of figures per step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class StepLogger(Logger):
    """A Lightning logger that gathers one step's metrics into one row and hands it to :meth:`write`.

    Lightning numbers the rows of training and of validation differently; here a row's step is always the number of
    finished iterations. A row is written when the step is over (``flush``), so training, validation and callbacks may
    all add to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trainer: L.Trainer | None = None
        self._row: dict[str, float] = {}
        self._step = 0

    def attach(self, trainer: L.Trainer) -> None:
        """The trainer whose ``global_step`` numbers the rows."""
        self._trainer = trainer

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        now = self._trainer.global_step if self._trainer is not None else int(step or 0)
        if now != self._step:
            self.flush()
        self._step = now
        self._row.update({k: float(v) for k, v in metrics.items() if k not in ("epoch", "step")})

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Settings are kept as config.yaml and by the tracker itself."""

    def flush(self) -> None:
        """Write the gathered row, if there is one."""
        if self._row:
            row, self._row = self._row, {}
            self.write(self._step, row)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Keep one step's metrics."""
        raise NotImplementedError

    def sync(self) -> None:
        """Wait until what was written would outlive the machine; nothing by default."""

    def log_file(self, path: Path, folder: str = "") -> None:
        """Keep a copy of (or a link to) a file; nothing by default."""

    def finish(self, status: str) -> None:
        """The stage has ended: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self.flush()
        self.sync()


def log_now(trainer: L.Trainer, metrics: Mapping[str, float]) -> None:
    """Add metrics to the current step's row of every logger. Far cheaper than ``self.log``, which keeps sums over
    epochs and ranks for each figure."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), trainer.global_step)


def log_file(trainer: L.Trainer, path: Path, folder: str = "") -> None:
    """Hand a file to every logger that keeps files."""
    for logger in trainer.loggers:
        if isinstance(logger, StepLogger):
            logger.log_file(path, folder)


def flush(trainer: L.Trainer) -> None:
    """Have every logger write the row of the step that is over."""
    for logger in trainer.loggers:
        if isinstance(logger, StepLogger):
            logger.flush()


def sync(trainer: L.Trainer) -> None:
    """Wait until every row that was written would outlive the machine."""
    for logger in trainer.loggers:
        if isinstance(logger, StepLogger):
            logger.sync()
