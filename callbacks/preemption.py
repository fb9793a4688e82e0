"""Being asked to stop: USR1 and TERM (Slurm, the operating system) and Ctrl-C end a run at the next step boundary.

A handler only sets a flag. At the boundary all ranks agree, the loop ends, the checkpoint of that very step is saved,
and, inside Slurm, rank 0 asks for the job to be queued again. No batch is lost: resuming continues at the next step.
A second Ctrl-C interrupts at once.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

import lightning as L

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)


class Preemption(L.Callback):
    """Stops cleanly on a signal. ``signal``: the one that arrived at this rank; ``stopped``: all ranks have agreed."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.stopped = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # Lightning installs its own handlers just before, which would abort the step; it restores the older ones.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if number == signal.SIGINT:
            log.warning("interrupted: stopping after this step (once more: at once, without saving)")

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False):
            self.stopped = True
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # time is short: Lightning would validate before it stops
            log.info("%s: stopping at step %d", self.signal.name if self.signal else "another rank's signal",
                     trainer.global_step)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)
        self._before = {}


def requeue(environment: Mapping[str, str] = os.environ) -> bool:
    """Ask Slurm to queue this job again; whether it will. Not in Slurm, or a job that was cancelled: False."""
    job = environment.get("SLURM_JOB_ID")
    if not job:
        return False
    if "JobState=CANCELLED" in _scontrol("show", "job", job).stdout:
        log.info("job %s was cancelled: not queued again", job)
        return False
    done = _scontrol("requeue", job)
    if done.returncode:
        log.warning("job %s could not be queued again (%s); submit it anew to go on", job, done.stderr.strip())
        return False
    log.info("job %s is queued again", job)
    return True


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess([], 1, "", str(error))
