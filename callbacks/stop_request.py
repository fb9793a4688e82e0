"""The flag behind a clean stop: USR1 and TERM (Slurm, the operating system) and Ctrl-C are noted, and acted upon later.

Slurm's signal may come before training has begun, while weights are still being read. Noted here from the process's
start on, it is obeyed at the first step's end; left to its default it would end the process unsaved.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)

FROM_SLURM = (signal.SIGUSR1, signal.SIGTERM)
ALL = (*FROM_SLURM, signal.SIGINT)


class StopRequest:
    """What has been asked of this process; ``signal`` is the latest signal that came while :meth:`listen` was on."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def listen(self, numbers: Iterable[signal.Signals]) -> None:
        """Note these signals from now on; a second Ctrl-C interrupts at once. In the main thread alone."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in numbers}

    def restore(self) -> None:
        """Give the signals back to who handled them before."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        if number == signal.SIGINT:
            log.warning("interrupted: stopping after this step (once more: at once, without saving)")


early = StopRequest()
"""What came before training began; the command turns it on where Slurm has started it."""
