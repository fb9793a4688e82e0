"""A run of ``dmd`` for the benchmarks of what watches it: models of two steps, clocks, a tracking server of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L

from callbacks.preemption import Preemption
from callbacks.step_logger import StepLogger
from lightning_modules.stage_module import StageModule
from pipelines.build import build_module
from pipelines.config.compose import compose
from pipelines.config.grammar import parse
from pipelines.config.schema import RunConfig
from pipelines.fitting import Fit, watchers
from pipelines.run_directory import RunDirectory
from pipelines.stages.train import build_data, science
from pipelines.tracking import open_loggers

CHECKOUT = Path(__file__).resolve().parents[1]
SMALL = ("prepare.clips=6", "prepare.val_clips=2", "data.codec_clips=6", "stages.orchestrator.steps=2",
         "teacher.steps=2")
Seconds = tuple[float, ...]
"""Wall time; processor time of all threads; of this one."""


def now() -> Seconds:
    """All clocks."""
    return time.perf_counter(), time.process_time(), time.thread_time()


def since(then: Seconds) -> Seconds:
    """The times that have passed."""
    return tuple(a - b for a, b in zip(now(), then, strict=True))


@dataclass
class Watched:
    """A stage that is ready to be trained, with production's callbacks and loggers, those that are part of a step."""

    cfg: RunConfig
    folder: Path
    module: StageModule
    data: L.LightningDataModule
    callbacks: list[L.Callback]
    loggers: list[StepLogger]


def watched_dmd(preset: str, root: Path, uri: str, steps: int, *settings: str) -> Watched:
    """Make the models before it (what a step costs does not depend on what they have learnt), then ``dmd`` itself, with
    a row each ten steps, MLflow at ``uri``, and neither validation, samples nor probes."""
    line = [f"preset={preset}", "name=b", f"root={root}", *SMALL, "trainer.threads=1", "dmd.trajectory.steps=0",
            "dmd.generator_from=0", "trainer.log_every=10", "trainer.val_every=0", "trainer.ckpt_every=0",
            "trainer.hang_minutes=600",  # it may hear of no step for long
            "callbacks.samples_every=0", "callbacks.probe_every=0", "callbacks.progress=true", *settings]
    subprocess.run([sys.executable, str(CHECKOUT / "pipelines/run.py"), *line, "stage=all", "tracking.kind=off",
                    "chain=[prepare,encode,orchestrator,teacher]"], check=True, stdout=subprocess.DEVNULL)
    cfg = compose(parse([*line, "stage=dmd", "tracking.kind=mlflow", f"tracking.uri={uri}"]))
    directory, options = RunDirectory.of(cfg), cfg.stages.dmd
    folder = directory.open("dmd", cfg)
    module = build_module("dmd", cfg, directory)
    loggers = open_loggers(cfg.callbacks.tracking, directory, "dmd", None, science(cfg, "dmd", module))
    job = Fit("dmd", folder, steps, cfg.trainer, cfg.callbacks, (options.ema_decay, options.average_from()), None, {})
    # The first validation and the last save are no part of a step.
    found = [c for c in watchers(job, [Preemption()]) if type(c).__name__ not in ("ValidationEnds", "Checkpoints")]
    return Watched(cfg, folder, module, build_data(cfg, directory), found, loggers)


class Inside:
    """Sums up this thread's processor time between a first and a last callback, and in a logger, also where a callback
    calls it."""

    def __init__(self) -> None:
        self.seconds, self._began, self._depth = 0.0, 0.0, 0

    def begin(self) -> None:
        if not self._depth:
            self._began = time.thread_time()
        self._depth += 1

    def end(self) -> None:
        self._depth -= 1
        if not self._depth:
            self.seconds += time.thread_time() - self._began

    def watch(self, logger: Any) -> None:
        """From now on its ``log_metrics`` is counted."""
        inner = logger.log_metrics

        def log_metrics(*arguments: Any, **named: Any) -> None:
            self.begin()
            inner(*arguments, **named)
            self.end()

        logger.log_metrics = log_metrics


class Last(L.Callback):
    """Stands last, and ends what the first callback began to count."""

    def __init__(self, inside: Inside) -> None:
        self.inside = inside

    def on_train_batch_start(self, *_: Any) -> None:
        self.inside.end()

    def on_train_batch_end(self, *_: Any) -> None:
        self.inside.end()


class TrackingServer:
    """MLflow over sqlite on loopback, in ``folder``; it can be stopped and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> TrackingServer:
        self.start()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it; it answers some seconds later."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
             "--artifacts-destination", str(self.folder / "artefacts"), "--host", "127.0.0.1", "--port",
             str(self.port), "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)

    def answers(self) -> bool:
        """Whether it does.

        Raises:
            SystemExit: where it has ended by itself.
        """
        if self._process is None or self._process.poll() is not None:
            raise SystemExit("the MLflow server has ended by itself")
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                return True
        except OSError:
            return False

    def wait(self) -> None:
        """Return when it answers."""
        while not self.answers():
            time.sleep(0.5)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """End all its processes at once; nothing where there are none."""
        if self._process is not None and self._process.poll() is None:
            self.signal(signal.SIGKILL)
            self._process.wait()
        self._process = None
