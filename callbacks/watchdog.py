"""A rank that hangs: after minutes without progress every rank writes where it stands, and ends.

When one rank hangs, the others wait for it in a collective, so all of them run out of time together, and the stacks of
all ranks lie side by side.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import IO, Any

import lightning as L

log = logging.getLogger(__name__)

GRACE_S = 20.0
"""At most so long after its stacks a rank ends: no faster rank may end it before it has written."""
SET_AGAIN_S = 2.0
"""The interpreter's timer is a thread that each setting ends and starts: more seldom than this, or steps would pay."""


class Watchdog(L.Callback):
    """Writes ``folder/rank_XXXXX.txt`` and ends this process after ``seconds`` without progress; the next process
    keeps what it finds there as ``rank_XXXXX.before.txt``.

    A thread writes the stacks; the end, at least ``grace_s`` later, is the interpreter's own timer, which needs no lock
    that a hanging extension may hold, and which writes them once more. The job then ends with a failure, to be started
    again. Time in which the process is suspended by SIGTSTP (Ctrl-Z) does not count; a bare SIGSTOP cannot be seen
    coming, and the timer may end what was stopped by it for longer.

    Args:
        folder: where stacks go.
        seconds: the longest time that a step, a validation batch or a save may take.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.seconds, self.grace_s = folder, seconds, min(GRACE_S, seconds)
        self.again_s = min(SET_AGAIN_S, seconds / 10)
        self._file: IO[str] | None = None
        self._last = self._set = 0.0
        self._over = threading.Event()
        self._process, self._suspends = os.getpid(), False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"rank_{trainer.global_rank:05d}.txt"
        if path.exists() and path.stat().st_size:  # of the life before, which nobody may have read yet
            path.replace(path.with_suffix(".before.txt"))
        self._file = path.open("w", encoding="utf-8")
        self._over.clear()
        self._listen()
        self._set = 0.0
        self._alive()
        threading.Thread(target=self._watch, args=(path,), name="watchdog", daemon=True).start()

    def _alive(self, *_: Any) -> None:
        self._last = time.monotonic()
        if self._file is not None and self._last - self._set >= self.again_s:
            self._set = self._last
            faulthandler.dump_traceback_later(self.seconds + 2 * self.again_s + self.grace_s, exit=True,
                                              file=self._file)

    def _watch(self, path: Path) -> None:
        seen, quiet = self._last, 0.0
        while not self._over.wait(self.again_s):  # of time in which the process is suspended this counts one round
            quiet = quiet + self.again_s if self._last == seen else 0.0
            seen = self._last
            if quiet >= self.seconds and self._file is not None:
                faulthandler.dump_traceback(self._file)
                self._file.flush()
                log.error("no progress for %.0f s: stacks are in %s; this process ends in %.0f s", quiet, path,
                          self.grace_s)
                return

    def _listen(self) -> None:
        """Set the timer aside while the process is suspended, where nobody else listens for that."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            signal.signal(signal.SIGTSTP, self._suspend)
            self._suspends = True

    def _suspend(self, *_: Any) -> None:
        mine = os.getpid() == self._process  # a loader's process has the handler too, but nothing to watch
        if mine:
            faulthandler.cancel_dump_traceback_later()
        os.kill(os.getpid(), signal.SIGSTOP)
        if mine:  # it has been continued
            self._set = 0.0
            self._alive()

    def _rest(self, *_: Any) -> None:
        """Nothing is to be watched any more."""
        self._over.set()
        if self._suspends:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            self._suspends = False
        if self._file is not None:
            faulthandler.cancel_dump_traceback_later()
            path = Path(self._file.name)
            self._file.close()
            self._file = None
            if path.stat().st_size == 0:
                path.unlink()

    def on_train_batch_start(self, *_: Any) -> None:
        self._alive()

    def on_train_batch_end(self, *_: Any) -> None:
        self._alive()

    def on_validation_batch_start(self, *_: Any) -> None:
        self._alive()

    def on_validation_batch_end(self, *_: Any) -> None:
        self._alive()

    def on_validation_end(self, *_: Any) -> None:
        self._alive()

    def teardown(self, *_: Any, **__: Any) -> None:
        self._rest()

    def on_exception(self, *_: Any) -> None:
        self._rest()
