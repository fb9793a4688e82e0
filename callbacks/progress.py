"""Progress: a bar on a terminal; in a log one line per logged step and one per validation, nothing else."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from callbacks.protocols import HasFigures, Headlined

log = logging.getLogger(__name__)


class ProgressLines(L.Callback):
    """Says what is going on, from rank 0 alone.

    Args:
        stage: what the lines begin with.
        bar: a bar instead of lines; not given: where the output is a terminal.
    """

    def __init__(self, stage: str, bar: bool | None = None) -> None:
        self.stage = stage
        self.console = Console(highlight=False)
        self.with_bar = self.console.is_terminal if bar is None else bar
        self._bar: Progress | None = None
        self._task: Any = None
        self._began, self._first = 0.0, 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._began, self._first = time.perf_counter(), trainer.global_step
        if self.with_bar and trainer.is_global_zero:
            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                                 TextColumn("{task.fields[said]}"), console=self.console)
            self._task = self._bar.add_task(self.stage, total=trainer.max_steps, completed=trainer.global_step, said="")
            self._bar.start()

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self._first:
            self._began = time.perf_counter()  # what came before the first step is not part of the rate

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        step = trainer.global_step
        logged = step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if not trainer.is_global_zero or not (logged or self._bar):
            return
        rate = (step - self._first) / max(time.perf_counter() - self._began, 1e-9)
        said = f"{_loss(module)}  {_rate(rate)}  ETA {_clock((trainer.max_steps - step) / rate)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, said=said)
        else:
            log.info("%s  step %d/%d  %s", self.stage, step, trainer.max_steps, said)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        names = module.headline_metrics if isinstance(module, Headlined) else ("eval/loss",)
        found = trainer.callback_metrics
        said = "  ".join(f"{name} {float(found[name]):.4f}" for name in names if name in found)
        if said:
            log.info("%s  step %d/%d  validation  %s", self.stage, trainer.global_step, trainer.max_steps, said)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _loss(module: L.LightningModule) -> str:
    figures = module.step_figures if isinstance(module, HasFigures) else {}
    return f"loss {figures['train/loss']:.4f}" if "train/loss" in figures else "loss -"


def _rate(steps_per_s: float) -> str:
    return f"{steps_per_s:.2f} steps/s" if steps_per_s >= 1 else f"{1 / max(steps_per_s, 1e-9):.1f} s/step"


def _clock(seconds: float) -> str:
    """``42 s``, ``3 min 07 s``, ``5 h 12 min``."""
    if not math.isfinite(seconds):
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
