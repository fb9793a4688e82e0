"""MLflow tracking that can neither slow a run down nor end it, nor lose or repeat a step.

What is sent is what ``metrics.jsonl`` holds: a background thread follows that file. The server itself says how far it
has come, for every metric, so a run that was cut off, a server that was away for hours and a batch whose answer got
lost all end the same way: the rest is sent, and nothing twice. A server that is down costs one warning;
``stage=sync-tracking`` sends later what a stage could not.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from lightning.pytorch.utilities import rank_zero_only

from callbacks.metrics_file import RowsReader
from callbacks.redaction import redact
from callbacks.step_logger import StepLogger

log = logging.getLogger(__name__)

RETRY_S = 30.0
LAST_S, LAST_TRIES = 1.0, 3
"""At the end: seconds between tries, and their number, for a database that others write to may refuse once."""
GATHER_S = 5.0
"""Rows are gathered for so long and sent together: one request costs more than the rows that are in it."""
BATCH = 100


class Tracker(Protocol):
    """The run that rows and files are sent to."""

    def open(self) -> None:
        """Create or reopen the run, set it RUNNING, and ask how far it has come."""

    def send(self, rows: list[dict[str, Any]]) -> None:
        """Send rows of ``metrics.jsonl``, leaving out what has arrived already."""

    def send_file(self, path: Path, folder: str) -> None:
        """Keep a copy of a file."""

    def tag(self, key: str, value: str) -> None:
        """Set a tag."""

    def close(self, status: str) -> None:
        """End the run with a status."""


class MLflowLogger(StepLogger):
    """Sends a stage's rows, files and tags to a :class:`Tracker` from a background thread.

    Args:
        tracker: where to.
        mirror: the stage's ``metrics.jsonl``; the logger that writes it stands before this one.
        finish_s: seconds to wait at the end for what is still unsent.
        files: kept with the run, those that exist.
    """

    def __init__(self, tracker: Tracker, mirror: Path, finish_s: float = 60.0, files: Sequence[Path] = ()) -> None:
        super().__init__()
        self.tracker, self.finish_s, self.files = tracker, finish_s, files
        self._rows = RowsReader(mirror)
        self._jobs: deque[tuple[str, Any]] = deque()
        self._wake = threading.Condition()
        self._news = True
        self._status: str | None = None
        self._opened = self._warned = False
        self._thread: threading.Thread | None = None
        self.in_time = True

    @rank_zero_only
    def begin(self) -> None:
        """Start sending, the files that the run is told of first."""
        for path in self.files:
            self.log_file(path)
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def write(self, step: int, row: dict[str, float]) -> None:
        with self._wake:
            self._news = True
            self._wake.notify()

    @rank_zero_only
    def log_file(self, path: Path, folder: str = "") -> None:
        self._put("file", (path, folder))

    @rank_zero_only
    def tag(self, key: str, value: str) -> None:
        """Set a tag of the run."""
        self._put("tag", (key, value))

    @rank_zero_only
    def finish(self, status: str) -> None:
        """End the run; ``in_time`` tells whether all of it got through."""
        self.flush()
        with self._wake:
            self._status, self._news = status, True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(self.finish_s)
            if self._thread.is_alive():
                self._warn(TimeoutError(f"still busy after {self.finish_s:g} s"))
                self.in_time = False

    def _put(self, kind: str, value: Any) -> None:
        with self._wake:
            self._jobs.append((kind, value))
            self._wake.notify()

    def _work(self) -> None:
        """The thread: send what there is; after a failure wait, keep it, and try again, at the end a few times."""
        tries = LAST_TRIES
        while True:
            with self._wake:
                self._wake.wait_for(lambda: bool(self._jobs) or self._news)
                self._news = False
            last = self._status is not None
            try:
                if not self._opened:
                    self.tracker.open()
                    self._opened = True
                self._send_rows()
                try:
                    self._send_jobs()
                except Exception as error:
                    if not last or tries > 1:
                        raise
                    self._warn(error)  # files that do not arrive leave the run's end to be told
                    self.in_time = False
                if last:
                    self.tracker.close(str(self._status))
                    return
                pause = GATHER_S
            except Exception as error:  # whatever a server or its client does, the run goes on
                self._opened = False  # what arrived of a request that failed is for the server to say
                self._warn(error)
                tries -= last
                if not tries:
                    self.in_time = False
                    return
                self._news, pause = True, RETRY_S
            if last:
                time.sleep(LAST_S)
                continue
            with self._wake:
                self._wake.wait_for(lambda: self._status is not None, pause)

    def _send_rows(self) -> None:
        """Rows are passed only when they are through."""
        while rows := self._rows.peek(BATCH):
            self.tracker.send(rows)
            self._rows.advance()

    def _send_jobs(self) -> None:
        """Files and tags, after the rows; each is given up only when it is through."""
        while self._jobs:
            kind, value = self._jobs[0]
            if kind == "tag":
                self.tracker.tag(*value)
            elif value[0].exists():
                self.tracker.send_file(*value)
            self._jobs.popleft()

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            what = f"{type(error).__name__}: {redact(' '.join(str(error).split()))[:160]}"
            log.warning("MLflow tracking fails (%s); the stage goes on, metrics.jsonl has everything, and sending is "
                        "tried again every %g s, and by stage=sync-tracking (callbacks.tracking.kind=off turns it off)",
                        what, RETRY_S)
