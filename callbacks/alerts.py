"""A message to a webhook when a training stage stops, was killed, diverges or cannot keep up with playback.

It is posted by a background thread with a time limit: a hook that is slow or gone costs one warning, never the run.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from lightning.pytorch.utilities import rank_zero_only

from callbacks.config import AlertConfig
from callbacks.metrics_file import read_rows
from callbacks.redaction import redact
from callbacks.step_logger import StepLogger

log = logging.getLogger(__name__)

MARK = ".at_work"


class Alerts(StepLogger):
    """Reads the rows that every logger gets. A kind of trouble that lasts is told again after ``repeat_minutes``.

    What is posted is JSON: ``text``, which chat services show, and ``run stage kind step``.

    Args:
        run, stage, folder: whose. While the stage trains, ``folder`` holds a mark; one that is found there by the next
            process tells that the last one was killed.
    """

    def __init__(self, cfg: AlertConfig, run: str, stage: str, folder: Path) -> None:
        super().__init__()
        self.cfg, self.run, self.stage = cfg, run, stage
        self._mark, self._marked = folder / MARK, False
        self._metrics = folder / "metrics.jsonl"
        self._told: dict[str, float] = {}
        self._nonfinite: float | None = None
        self._last = 0
        self._warned = False
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @rank_zero_only
    def begin(self, step: int | None) -> None:
        """Tell of a process that ended without a word. To be called before the rows beyond ``step``, where training
        goes on (None: from its beginning), are dropped."""
        if self._mark.exists():
            self._last = max((row["step"] for row in read_rows(self._metrics)), default=0)
            self._tell("killed", "the process ended without a word (killed from outside, by the watchdog, or with its "
                       f"machine); the stage goes on from {f'step {step}' if step else 'its beginning'}")

    def write(self, step: int, row: dict[str, float]) -> None:
        self._last = step
        self._set_mark()
        dropped, before = row.get("stability/nonfinite"), self._nonfinite
        if dropped is not None:
            self._nonfinite = dropped
            if before is not None and dropped > before:
                self._tell("divergence", f"{dropped - before:.0f} updates were dropped, their values not finite")
        if self.cfg.spike and (spike := row.get("stability/spike_loss", 0.0)) > self.cfg.spike:
            self._tell("divergence", f"the loss stands out by {spike:.0f} deviations (stability/spike_loss)")
        if (factor := row.get("perf/real_time_factor", 0.0)) > 1.0:
            self._tell("throughput", f"a streamed chunk takes {factor:.2f} of the time that it lasts")

    @rank_zero_only
    def finish(self, status: str) -> None:
        self.flush()
        self._mark.unlink(missing_ok=True)
        error = sys.exc_info()[1]  # training's own, where the loggers are finished because of it
        if status == "FAILED":
            self._tell("failed", f"{type(error).__name__}: {error}" if error else "see its log")
        elif status != "FINISHED":
            self._tell("stopped", "before its end, with its state saved")
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(self.cfg.timeout_s)

    def _set_mark(self) -> None:
        """Only once a row was logged: what fails before that says so itself."""
        if not self._marked:
            self._marked = True
            try:
                self._mark.touch()
            except OSError as error:
                log.warning("%s cannot be written (%s): a hard kill will not be told", self._mark, error)

    def _tell(self, kind: str, what: str) -> None:
        now = time.monotonic()
        if now - self._told.get(kind, float("-inf")) < 60 * self.cfg.repeat_minutes:
            return
        self._told[kind] = now
        text = redact(f"{self.run}/{self.stage} {kind} at step {self._last}: {what}")[:500]
        self._queue.put(json.dumps({"text": text, "run": self.run, "stage": self.stage, "kind": kind,
                                    "step": self._last}).encode())
        if self._thread is None:
            self._thread = threading.Thread(target=self._post_all, name="alerts", daemon=True)
            self._thread.start()

    def _post_all(self) -> None:
        while (body := self._queue.get()) is not None:
            try:
                request = urllib.request.Request(self.cfg.url, body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(request, timeout=self.cfg.timeout_s):
                    pass
            except Exception as error:  # whatever an address or its server does, the run goes on
                self._warn(error)

    def _warn(self, error: Exception) -> None:
        """The address is the secret, so neither it nor a message that may hold it is written."""
        if not self._warned:
            self._warned = True
            what = " ".join([type(error).__name__, str(getattr(error, "code", ""))]).strip()
            log.warning("an alert could not be posted to %s (%s); training goes on, callbacks.alerts.url= turns alerts "
                        "off", _host(self.cfg.url), what)


def _host(url: str) -> str:
    try:
        return str(urlsplit(url).hostname)
    except ValueError:
        return "an address that is none"
