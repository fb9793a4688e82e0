"""Being asked to stop: USR1 and TERM (Slurm, the operating system) and Ctrl-C end a run at the next step boundary.

A handler only sets a flag. At the boundary all ranks agree, the loop ends, the checkpoint of that very step is saved,
and, inside Slurm, rank 0 asks for the job to be queued again. No batch is lost: resuming continues at the next step.
A second Ctrl-C interrupts at once.
"""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping
from signal import Signals
from typing import Any

import lightning as L

from callbacks import stop_request

log = logging.getLogger(__name__)


class Preemption(L.Callback):
    """Stops cleanly on a signal. ``signal``: the one that arrived at this rank; ``stopped``: all ranks have agreed."""

    def __init__(self) -> None:
        self.stopped = False
        self._request = stop_request.StopRequest()

    @property
    def signal(self) -> Signals | None:
        return self._request.signal or stop_request.early.signal

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # Lightning installs its own handlers just before, which would abort the step; it restores the older ones.
        self._request.listen(stop_request.ALL)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        asked = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        if asked and trainer.global_step < trainer.max_steps:  # the last step ends the stage anyway
            self.stopped = True
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # time is short: Lightning would validate before it stops
            log.info("%s: stopping at step %d", self.signal.name if self.signal else "another rank's signal",
                     trainer.global_step)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self._request.restore()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._request.restore()


def requeue(environment: Mapping[str, str] = os.environ) -> bool:
    """Ask Slurm to queue this job again; whether it will. Not in Slurm, or a job that was cancelled: False."""
    job = _job(environment)
    if not job:
        return False
    if "JobState=CANCELLED" in _scontrol("show", "job", job).stdout:
        log.info("job %s was cancelled: not queued again", job)
        return False
    done = _scontrol("requeue", job)
    if "pending execution" in done.stderr:  # an administrator's requeue, or Slurm's own, has been faster
        log.info("job %s is queued again already", job)
        return True
    if done.returncode:
        log.warning("job %s could not be queued again (%s); submit it anew to go on", job, done.stderr.strip())
        return False
    log.info("job %s is queued again", job)
    return True


def _job(environment: Mapping[str, str]) -> str:
    """How Slurm calls this job. An array's last member has the array's own number, by which all members are meant."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID", "")


def _scontrol(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess([], 1, "", str(error))
