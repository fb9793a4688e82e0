"""MLflow tracking that can neither slow a run down nor end it.

Everything goes through one background thread in batches. A tracking server that is down or broken costs one warning;
what could not be sent is tried again later, and ``metrics.jsonl`` has all of it anyway. The run's id is kept in the
stage's folder and reopened by the next process, so that a resumed stage is one run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch.utilities import rank_zero_only

from callbacks.step_logger import StepLogger

log = logging.getLogger(__name__)

BACKLOG = 20_000
"""Rows kept while the server is away."""
RETRY_S = 30.0
BATCH = 100


class Tracker(Protocol):
    """The run that rows and files are sent to."""

    def open(self) -> None:
        """Create or reopen the run and set it RUNNING."""

    def send(self, rows: list[tuple[int, float, dict[str, float]]]) -> None:
        """Send rows of (step, seconds since 1970, metrics)."""

    def send_file(self, path: Path, folder: str) -> None:
        """Keep a copy of a file."""

    def tag(self, key: str, value: str) -> None:
        """Set a tag."""

    def close(self, status: str) -> None:
        """End the run with a status."""


class MLflowLogger(StepLogger):
    """Sends rows, files and tags to a :class:`Tracker` from a background thread.

    Args:
        tracker: where to.
        finish_s: seconds to wait at the end for what is still unsent.
    """

    def __init__(self, tracker: Tracker, finish_s: float = 60.0) -> None:
        super().__init__()
        self.tracker, self.finish_s = tracker, finish_s
        self._jobs: deque[tuple[str, Any]] = deque(maxlen=BACKLOG)
        self._wake = threading.Condition()
        self._status: str | None = None
        self._opened = self._warned = False
        self._thread: threading.Thread | None = None

    @rank_zero_only
    def begin(self) -> None:
        """Start sending."""
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def write(self, step: int, row: dict[str, float]) -> None:
        self._put("row", (step, time.time(), row))

    @rank_zero_only
    def log_file(self, path: Path, folder: str = "") -> None:
        self._put("file", (path, folder))

    @rank_zero_only
    def tag(self, key: str, value: str) -> None:
        """Set a tag of the run."""
        self._put("tag", (key, value))

    @rank_zero_only
    def finish(self, status: str) -> None:
        self.flush()
        with self._wake:
            self._status = status
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(self.finish_s)
            if self._thread.is_alive():
                self._warn(f"still busy after {self.finish_s:g} s")

    def _put(self, kind: str, value: Any) -> None:
        with self._wake:
            self._jobs.append((kind, value))
            self._wake.notify()

    def _work(self) -> None:
        """The thread: send what there is; after a failure wait, keep it, and try again; one last try at the end."""
        while True:
            with self._wake:
                self._wake.wait_for(lambda: bool(self._jobs) or self._status is not None)
            last = self._status is not None
            try:
                if not self._opened:
                    self.tracker.open()
                    self._opened = True
                while self._jobs:
                    self._send_some()
                if last:
                    self.tracker.close(str(self._status))
                    return
            except Exception as error:  # whatever a server or its client does, the run goes on
                self._warn(f"{type(error).__name__}: {str(error)[:160]}")
                if last:
                    return
                with self._wake:
                    self._wake.wait_for(lambda: self._status is not None, RETRY_S)

    def _send_some(self) -> None:
        """Send up to ``BATCH`` jobs of the first one's kind; they leave the queue only when they are through."""
        jobs = list(self._jobs)[:BATCH]
        kind = jobs[0][0]
        count = next((i for i, job in enumerate(jobs) if job[0] != kind), len(jobs)) if kind == "row" else 1
        if kind == "row":
            self.tracker.send([value for _, value in jobs[:count]])
        elif kind == "file":
            path, folder = jobs[0][1]
            if path.exists():
                self.tracker.send_file(path, folder)
        else:
            self.tracker.tag(*jobs[0][1])
        with self._wake:
            for _ in range(min(count, len(self._jobs))):
                self._jobs.popleft()

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("MLflow tracking fails (%s); training goes on, metrics.jsonl has everything, and sending is "
                        "tried again every %g s (callbacks.tracking.kind=off turns it off)", what, RETRY_S)
