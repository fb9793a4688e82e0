"""perf/cpu_cores and its kin: what the first rank's process and its machine are busy with."""

from __future__ import annotations

from typing import Any

import lightning as L
import psutil

from callbacks.step_logger import log_now


class SystemLoad(L.Callback):
    """Logs, at logged steps, ``perf/cpu_cores`` (cores that this process has kept busy since the last time),
    ``perf/process_gib`` (its memory) and ``perf/host_memory_share`` (of the whole machine's memory, what is in use)."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    def on_train_start(self, *_: Any) -> None:
        self._process.cpu_percent()  # the first call only starts the measurement

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            log_now(trainer, {
                "perf/cpu_cores": self._process.cpu_percent() / 100,
                "perf/process_gib": self._process.memory_info().rss / 2**30,
                "perf/host_memory_share": psutil.virtual_memory().percent / 100})
