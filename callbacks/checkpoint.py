"""Saves and restores a training stage: every ``every`` steps and at the end, completely or not at all.

A checkpoint is taken between two steps: after a step's metrics are logged and its validation is done, before the next
one begins. It holds what Lightning dumps (optimisers, callbacks, the data cursor), the module's trained roles instead
of the whole module, the averaged weights, the configuration and the code's revision; what belongs to one rank alone
(stream memories) is a file of its own.
"""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from callbacks import checkpoint_files as files
from callbacks.mlflow_logger import MLflowLogger
from callbacks.protocols import Checkpointed
from callbacks.step_logger import flush, log_now, sync
from streamchar.errors import CheckpointError, InputError

log = logging.getLogger(__name__)


class Checkpoints(L.Callback):
    """Writes ``folder/step_XXXXXXXX`` and restores from one given to ``trainer.fit(ckpt_path=...)``.

    A save that fails (a full disk) leaves the last good checkpoint alone; it costs a warning, except at the stage's
    end, where it is an error. Stands after every callback that keeps state.

    Args:
        folder: where checkpoints are.
        every: steps between saves; 0: at the end only.
        keep: complete checkpoints that stay.
        about: plain values kept in state and marker (``config``, ``settings``, ``code``).
    """

    def __init__(self, folder: Path, every: int, keep: files.Keep, about: dict[str, Any] | None = None) -> None:
        self.folder, self.every, self.keep, self.about = folder, every, keep, about or {}
        self.saved_step: int | None = None
        self._judged: tuple[int, float] | None = None
        self._figures: dict[str, float] = {}

    # When

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        flush(trainer)
        step = trainer.global_step
        if self.every and step and step % self.every == 0 and step != self.saved_step:
            self.save(trainer, module, final=False)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        flush(trainer)
        if trainer.global_step != self.saved_step:
            self.save(trainer, module, final=True)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._figures and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            log_now(trainer, self._figures)
            self._figures = {}

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note the figure by which the best checkpoint is chosen, for a save at this very step.

        Raises:
            InputError: where the stage has no such figure.
        """
        if not self.keep.best or trainer.sanity_checking:
            return
        found = {k: v for k, v in trainer.callback_metrics.items() if not k.startswith("train/")}
        if self.keep.best not in found:
            raise InputError(f"trainer.best={self.keep.best} is no held-out figure of this stage; it has "
                             f"{', '.join(sorted(found)) or 'none'}")
        self._judged = trainer.global_step, float(found[self.keep.best])

    # Saving

    def save(self, trainer: L.Trainer, module: L.LightningModule, final: bool) -> None:
        """Save the state of the step that has just ended; called by all ranks together.

        Raises:
            CheckpointError: where ``final`` and it cannot be written.
        """
        began, step = time.perf_counter(), trainer.global_step
        sync(trainer)  # where training goes on from here, the rows before it must be there, whatever has died
        state, own = self._state(trainer, module)
        part = self.folder / f"step_{step:08d}.part"
        problem = _attempt(lambda: files.begin(self.folder, step)) if trainer.is_global_zero else None
        problem = trainer.strategy.broadcast(problem)
        written: dict[str, dict[str, Any]] = {}
        if problem is None:
            problem = _attempt(lambda: self._write(part, state, own, trainer, written))
        results = _gather(trainer, (problem, written))
        problem = next((p for p, _ in results if p), None)
        if problem is None and trainer.is_global_zero:
            entries = {name: entry for _, part_of in results for name, entry in part_of.items()}
            problem = _attempt(lambda: self._finish(part, step, entries, trainer))
        problem = trainer.strategy.broadcast(problem)
        if problem is not None:
            self._failed(trainer, part, problem, final)
            return
        self.saved_step = step
        size = sum(entry["size"] for _, part_of in results for entry in part_of.values())
        self._figures = {"ckpt/seconds": time.perf_counter() - began, "ckpt/megabytes": size / 1e6}

    def _state(self, trainer: L.Trainer, module: L.LightningModule) -> tuple[dict[str, Any], dict[str, Any]]:
        """What all ranks share, and what is this rank's own."""
        assert isinstance(module, Checkpointed)
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        shared = module.checkpoint_state_dict(keep=trainer.is_global_zero)
        own = {"extra": shared.pop("extra", {}), "callbacks": {
            type(c).__name__: c.rank_state_dict()
            for c in trainer.callbacks if hasattr(c, "rank_state_dict")}}  # type: ignore[attr-defined]
        # Lightning's loop counters are made again from the step; weights and optimisers are stored by name.
        state.pop("loops", None)
        state |= {"state_dict": {}, "module": shared, "about": self.about, "world": trainer.world_size}
        return state, own

    def _write(self, part: Path, state: dict[str, Any], own: dict[str, Any], trainer: L.Trainer,
               written: dict[str, dict[str, Any]]) -> None:
        name = files.rank_file(trainer.global_rank)
        written[name] = files.write_file(part / name, own)
        if trainer.is_global_zero:
            written[files.STATE] = files.write_file(part / files.STATE, state)

    def _finish(self, part: Path, step: int, entries: dict[str, Any], trainer: L.Trainer) -> None:
        marker = {"step": step, "world": trainer.world_size, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                  "files": entries, "figures": self._figures_of(step),
                  **{k: v for k, v in self.about.items() if k != "config"}}
        path = files.finish(part, marker)
        files.prune(self.folder, self.keep)
        for logger in trainer.loggers:
            if isinstance(logger, MLflowLogger):
                logger.tag("checkpoint", f"{path} {entries[files.STATE]}")

    def _figures_of(self, step: int) -> dict[str, float]:
        """What was measured at this step, of what checkpoints are judged by."""
        return {self.keep.best: self._judged[1]} if self._judged and self._judged[0] == step else {}

    def _failed(self, trainer: L.Trainer, part: Path, problem: str, final: bool) -> None:
        if trainer.is_global_zero:
            shutil.rmtree(part, ignore_errors=True)
        good = [p for p in files.folders(self.folder) if (p / files.MARKER).exists()]
        last = f"the last good one is {good[-1].name}" if good else "there is none yet"
        message = f"the checkpoint of step {trainer.global_step} could not be saved ({problem}); {last}"
        if final:
            raise CheckpointError(f"{message}; free some space in {self.folder} and run the same command again")
        log.warning("%s; training goes on", message)

    # Restoring

    def on_load_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(module, Checkpointed)
        self.saved_step = int(checkpoint["global_step"])
        own: dict[str, Any] = {}
        if checkpoint["world"] == trainer.world_size:
            path = Path(str(trainer.ckpt_path)).parent
            own = files.load(path, files.rank_file(trainer.global_rank))
        else:
            log.warning("the checkpoint was saved by %d processes, now there are %d: streams begin afresh",
                        checkpoint["world"], trainer.world_size)
        module.load_checkpoint_state({**checkpoint["module"], "extra": own.get("extra", {})})
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "load_rank_state_dict"):
                callback.load_rank_state_dict(own.get("callbacks", {}).get(type(callback).__name__, {}))

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Count on from the restored step: iterations are all that the loops' own counters depend on."""
        step = self.saved_step or 0
        loop = trainer.fit_loop.epoch_loop
        manual = loop.manual_optimization.optim_step_progress
        for progress in (loop.batch_progress.total, manual.total,
                         loop.automatic_optimization.optim_progress.optimizer.step.total):
            for counter in vars(progress):
                setattr(progress, counter, step)
        loop._batches_that_stepped = step


def _attempt(action: Any) -> str | None:
    """Do it; what went wrong with the disk in words, or None."""
    try:
        action()
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def _gather(trainer: L.Trainer, value: Any) -> list[Any]:
    """Every rank's value, on every rank."""
    if trainer.world_size == 1:
        return [value]
    found: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(found, value)
    return found
