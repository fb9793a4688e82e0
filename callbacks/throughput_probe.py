"""Throughput probe: can the model that is being trained keep up with playback?

A fixed stream of a few chunks runs every N steps, outside of training's state: no gradients, no counters, no noise of
its own. The first chunk is timed apart, since it decides how long a user waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch

from callbacks.cadence import due
from callbacks.inference import inference, takes_part
from callbacks.protocols import Probed
from callbacks.step_logger import log_file, log_now
from streamchar.evaluation.playback_bars import playback_bars

log = logging.getLogger(__name__)


class ThroughputProbe(L.Callback):
    """Logs ``perf/chunk_s`` (mean after the first), ``perf/real_time_factor`` (over all chunks; below 1 keeps up),
    ``perf/first_chunk_s``, ``perf/chunk_budget_s``, and its own cost: ``perf/probe_s``, and ``perf/probe_share`` of
    the time since training began. ``folder/playback_step_XXXXXXXX.svg`` shows every chunk beside what it may take.

    Args:
        folder: where pictures go.
        every: steps between probes; 0: never; -1: at the stage's last step.
        chunks: length of the stream.
        weights: context in which the stream runs (averaged weights).
    """

    def __init__(self, folder: Path, every: int, chunks: int,
                 weights: Callable[[L.LightningModule], AbstractContextManager[None]] | None = None) -> None:
        self.folder, self.every, self.chunks = folder, every, chunks
        self.weights = weights or (lambda module: nullcontext())
        self._began = time.perf_counter()
        self._spent = 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._began, self._spent = time.perf_counter(), 0.0

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if not due(trainer, self.every) or not takes_part(trainer) or not isinstance(module, Probed):
            return
        began = time.perf_counter()
        with self.weights(module), inference(trainer, module):
            seconds = self._time(module)
        if not seconds or not trainer.is_global_zero:
            return
        self._draw(trainer, seconds, module.chunk_seconds)
        cost = time.perf_counter() - began
        self._spent += cost
        later = seconds[1:] or seconds
        log_now(trainer, {
            "perf/first_chunk_s": seconds[0], "perf/chunk_s": sum(later) / len(later),
            "perf/chunk_budget_s": module.chunk_seconds,
            "perf/real_time_factor": sum(seconds) / (len(seconds) * module.chunk_seconds),
            "perf/probe_s": cost, "perf/probe_share": self._spent / (time.perf_counter() - self._began)})

    def _draw(self, trainer: L.Trainer, seconds: list[float], budget: float) -> None:
        path = self.folder / f"playback_step_{trainer.global_step:08d}.svg"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(playback_bars(seconds, budget, f"step {trainer.global_step}"), encoding="utf-8")
        except OSError as error:
            log.warning("%s was not written: %s", path, error)
            return
        log_file(trainer, path, "samples")

    def _time(self, module: Probed) -> list[float]:
        """Seconds of every chunk of the stream."""
        seconds, last = [], time.perf_counter()
        for _ in module.probe_stream(self.chunks):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            seconds.append(now - last)
            last = now
        return seconds
