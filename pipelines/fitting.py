"""Runs one training stage to its end, or to where it is asked to stop, with everything that watches it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from callbacks import checkpoint_files as files
from callbacks.checkpoint import Checkpoints
from callbacks.config import CallbackConfig
from callbacks.ema import AveragedWeights
from callbacks.pointer_logging import PointerLogging
from callbacks.preemption import Preemption, requeue
from callbacks.progress import ProgressLines
from callbacks.role_memory import RoleMemory
from callbacks.samples import Samples
from callbacks.sink_checkpoint import SinkCheckpoint
from callbacks.spikes import Spikes
from callbacks.step_logger import StepLogger
from callbacks.step_time import StepTime
from callbacks.system_load import SystemLoad
from callbacks.throughput_probe import ThroughputProbe
from callbacks.time_limit import TimeLimit
from callbacks.validation_ends import ValidationEnds
from callbacks.watchdog import Watchdog
from datamodules.module import LatentDataModule
from pipelines.trainer import accelerator_of, build_trainer
from pipelines.trainer_config import TrainerConfig
from streamchar.denoiser.model import Denoiser
from streamchar.distributed.activations import checkpoint_activations
from streamchar.distributed.compiling import can_compile, compile_parts
from streamchar.errors import StreamCharError
from streamchar.orchestrator.model import Orchestrator

log = logging.getLogger(__name__)


@dataclass
class Fit:
    """What is to be trained, and how.

    steps: where the stage ends. ema: (decay, start). start: checkpoint folder to go on from. about: plain values kept
    in every checkpoint.
    """

    stage: str
    folder: Path
    steps: int
    trainer: TrainerConfig
    callbacks: CallbackConfig
    ema: tuple[float, int]
    start: Path | None
    about: dict[str, Any]


def fit(job: Fit, module: L.LightningModule, data: L.LightningDataModule, loggers: Sequence[StepLogger]) -> bool:
    """Train; whether the stage is complete (False: stopped early, saved, to be gone on with).

    Raises:
        KeyboardInterrupt: after Ctrl-C, when the checkpoint has been saved.
        StreamCharError: where the data ended before the stage did, or a loader process died.
    """
    preemption, limit = Preemption(), TimeLimit(job.trainer.max_minutes) if job.trainer.max_minutes else None
    stops: list[Preemption | TimeLimit] = [preemption, limit] if limit else [preemption]
    trainer = build_trainer(job.trainer, job.steps, job.folder, watchers(job, stops), loggers)
    prepare_models(module, job.trainer)
    module.strict_loading = False  # a checkpoint holds the trained roles; what it must hold is checked on loading
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(job.start / files.STATE) if job.start else None,
                    weights_only=True)
        if not any(stop.stopped for stop in stops):
            _all_steps_done(job, trainer)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)  # Lightning turns Ctrl-C into SystemExit
        _finish(loggers, "KILLED" if stopped else "FAILED")
        if isinstance(error, SystemExit) and preemption.signal == signal.SIGINT:
            raise KeyboardInterrupt from error
        if lost := data.lost_worker(error) if isinstance(data, LatentDataModule) else None:
            raise lost from error
        raise
    complete = not any(stop.stopped for stop in stops)
    interrupted = preemption.stopped and preemption.signal == signal.SIGINT
    _finish(loggers, "FINISHED" if complete else "KILLED")
    if preemption.stopped and not interrupted and trainer.is_global_zero:
        requeue()
    # Only now: a rank that ends before the others makes srun end them all, rank 0 with what it still has to send.
    _leave_together()
    if interrupted:
        raise KeyboardInterrupt
    return complete


def prepare_models(module: L.LightningModule, cfg: TrainerConfig) -> None:
    """Let the models recompute activations and compile them, in place, as ``cfg`` says."""
    accelerator = accelerator_of(cfg)
    compiles = cfg.compile and can_compile("cuda" if accelerator == "gpu" else "cpu")
    whole_lm = cfg.activations == "keep" and cfg.strategy in ("auto", "single", "ddp")
    if compiles:
        log.info("models are compiled: the first steps take some minutes where that is done for the first time")
        torch.compiler.reset()  # graphs of an earlier stage of this process would count towards dynamo's limit
    for model in module.children():
        if not isinstance(model, Denoiser | Orchestrator):
            continue
        learns = any(p.requires_grad for p in model.parameters())
        if learns:
            checkpoint_activations(model, cfg.activations)
        if compiles and (learns or isinstance(model, Denoiser)):
            compile_parts(model, whole_lm)


def watchers(job: Fit, stops: Sequence[L.Callback]) -> list[L.Callback]:
    """The callbacks in the order in which they are called.

    The watchdog comes first, to be told of a step before anything may hang; then averages, so that validation sees them
    from its beginning and nothing else does after its end; checkpoints come after all that keeps state, and before what
    only looks on.
    """
    options, samples = job.callbacks, job.folder / "samples"
    hang_s = 60 * job.trainer.hang_minutes
    average = AveragedWeights(*job.ema) if options.ema else None
    weights = average.swapped if average else None
    keep = files.Keep(job.trainer.keep_last, job.trainer.keep_every, job.trainer.best, job.trainer.best_is == "largest")
    found: list[L.Callback | None] = [
        Watchdog(job.folder / "stacks", hang_s) if hang_s else None, average, *stops, Spikes(),
        PointerLogging(samples) if options.pointer else None, SinkCheckpoint(),
        Checkpoints(job.folder / "checkpoints", job.trainer.ckpt_every, keep, job.about),
        StepTime(), SystemLoad(), RoleMemory(average),
        ThroughputProbe(samples, options.probe_every, options.probe_chunks, weights),
        Samples(samples, options.samples_every, weights),
        ProgressLines(job.stage) if options.progress else None, ValidationEnds()]
    return [callback for callback in found if callback is not None]


def _leave_together() -> None:
    """End the process group while all ranks are here: left to the interpreter's end, where one rank may be gone
    already, the threads of the others now and then abort a process whose training is done."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _all_steps_done(job: Fit, trainer: L.Trainer) -> None:
    """A loader that runs dry ends Lightning's loop without a word: such a run must not look like a finished one."""
    if trainer.global_step == job.steps:
        return
    raise StreamCharError(f"stage {job.stage} ended at step {trainer.global_step} in place of {job.steps}: the data "
                          "came to an end; training streams must be infinite on every rank")


def _finish(loggers: Sequence[StepLogger], status: str) -> None:
    for logger in loggers:
        logger.finish(status)
