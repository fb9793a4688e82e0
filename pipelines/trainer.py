"""Assembles Lightning's Trainer: devices and processes, precision, cadences; without its own logs and checkpoints."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.strategies import Strategy

from callbacks.step_logger import StepLogger
from pipelines.allocator import keep_freed_memory
from pipelines.strategies.fsdp2 import Fsdp2
from pipelines.strategies.stored_whole import Replicated, Single
from pipelines.strategies.zero import ZeroEngines
from pipelines.trainer_config import TrainerConfig
from streamchar.errors import InputError
from streamchar.nn import attention
from streamchar.nn.bfloat16 import fast_bfloat16

log = logging.getLogger(__name__)


def build_trainer(cfg: TrainerConfig, steps: int, folder: Path, callbacks: Sequence[L.Callback],
                  loggers: Sequence[Logger] = ()) -> L.Trainer:
    """The Trainer of one stage.

    Args:
        cfg: options.
        steps: iterations at which the stage ends.
        folder: the stage's folder.
        callbacks, loggers: in the order in which they are called; loggers count in iterations.

    Raises:
        InputError: for a strategy that is not offered or devices that are not there.
    """
    quiet_lightning()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    devices, nodes = processes(cfg)
    accelerator = accelerator_of(cfg)
    if accelerator == "cpu":
        keep_freed_memory()
    if precision_of(cfg, accelerator) != cfg.precision:
        log.info("this CPU has no fast bfloat16 products: training in float32 in place of trainer.precision=%s",
                 cfg.precision)
    if accelerator == "gpu" and devices > torch.cuda.device_count():
        raise InputError(f"trainer.devices={devices} but this node has {torch.cuda.device_count()} GPUs; ask for fewer "
                         "or use trainer.accelerator=cpu")
    if accelerator == "gpu":
        attention.use("cuda", cfg.attention or None)
    strategy = strategy_of(cfg, devices * nodes, accelerator)
    # One endless epoch: with more allowed, a loader that runs dry would be asked again and again for ever.
    trainer = L.Trainer(
        accelerator=accelerator, devices=devices, num_nodes=nodes, strategy=strategy,
        precision=cast(Any, precision_of(cfg, accelerator)), plugins=[_environment(devices * nodes)],
        logger=list(loggers) or False, callbacks=list(callbacks), max_epochs=1, max_steps=steps,
        log_every_n_steps=cfg.log_every, val_check_interval=cfg.val_every or max(steps, 1),
        check_val_every_n_epoch=None, limit_val_batches=cfg.val_batches or 1.0, num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, inference_mode=False, default_root_dir=folder)
    for logger in trainer.loggers:
        if isinstance(logger, StepLogger):
            logger.attach(trainer)
    return trainer


def processes(cfg: TrainerConfig, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Processes per node and nodes: as configured, else as Slurm gives them, else one.

    Raises:
        InputError: where the configuration and Slurm's allocation disagree.
    """
    nodes = int(environment.get("SLURM_JOB_NUM_NODES", 1)) if _launched_by_slurm(environment) else 1
    tasks = int(environment.get("SLURM_NTASKS", 1)) if _launched_by_slurm(environment) else 1
    given = (cfg.devices or max(tasks // nodes, 1), cfg.nodes or nodes)
    if tasks > 1 and given[0] * given[1] != tasks:
        raise InputError(f"trainer.devices={given[0]} x trainer.nodes={given[1]} but srun started {tasks} processes; "
                         "leave both at 0, or change --ntasks-per-node and --nodes")
    return given


def accelerator_of(cfg: TrainerConfig) -> str:
    """``cpu`` or ``gpu``.

    Raises:
        InputError: for ``gpu`` without one.
    """
    if cfg.accelerator == "gpu" and not torch.cuda.is_available():
        raise InputError("trainer.accelerator=gpu but torch sees no GPU; use cpu or auto")
    return ("gpu" if torch.cuda.is_available() else "cpu") if cfg.accelerator == "auto" else cfg.accelerator


def precision_of(cfg: TrainerConfig, accelerator: str) -> str:
    """``trainer.precision``, but float32 on a CPU without fast bfloat16 products: there they take longer."""
    slow = cfg.precision == "bf16-mixed" and accelerator == "cpu" and not fast_bfloat16("cpu")
    return "32" if slow else cfg.precision


def strategy_of(cfg: TrainerConfig, world: int, accelerator: str) -> Strategy:
    """How processes share the work.

    Raises:
        InputError: for options that do not fit one another or the number of processes.
    """
    if found := cfg.problems("trainer"):
        raise InputError("; ".join(found))
    if cfg.strategy == "single" and world > 1:
        raise InputError(f"trainer.strategy=single is one process, but there are {world}; use ddp or auto")
    if cfg.strategy == "single" or (cfg.strategy == "auto" and world == 1):
        return Single("cuda:0" if accelerator == "gpu" else "cpu")
    backend = "nccl" if accelerator == "gpu" else "gloo"
    if cfg.strategy == "fsdp2":
        if cfg.shard_ranks and world % cfg.shard_ranks:
            raise InputError(f"trainer.shard_ranks={cfg.shard_ranks} does not divide the {world} processes")
        compute = torch.bfloat16 if precision_of(cfg, accelerator) == "bf16-mixed" else None
        return Fsdp2(backend, cfg.shard_ranks, compute, "shard" if cfg.frozen == "auto" else cfg.frozen)
    if cfg.strategy == "deepspeed":
        return ZeroEngines(backend, cfg.zero_stage, "replicate" if cfg.frozen == "auto" else cfg.frozen,
                           cfg.activations == "selective")
    # The roles of the two-optimiser stages are not all part of every step's graph.
    return Replicated(find_unused_parameters=True, process_group_backend=backend)


def _launched_by_slurm(environment: Mapping[str, str]) -> bool:
    """Whether ``srun`` started this process (a batch script alone is no launcher)."""
    return "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment


def _environment(world: int) -> Any:
    if world > 1 and _launched_by_slurm(os.environ):
        return _Slurm(auto_requeue=False)
    return LightningEnvironment()


class _Slurm(SLURMEnvironment):
    """The master's address as the batch script gives it: a node's name in Slurm need not be one in the network."""

    @property
    def main_address(self) -> str:
        return os.environ.get("MASTER_ADDR") or super().main_address


def quiet_lightning() -> None:
    """Leave out Lightning's tips, and warnings about what is done on purpose here."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in (r".*does not have many workers.*", r".*`log_every_n_steps`.*", r".*LeafSpec.*",
                    r".*ckpt_path.*callbacks used to create.*", r".*is supported for historical reasons.*",
                    r".*in eval mode at the start of training.*", r".*sync_dist=True.*", r".*Starting from v1\.9\.0.*",
                    r".*GPU available but not used.*", r".*isinstance\(treespec.*", r".*find_unused_parameters=True.*",
                    r".*srun` command is available.*", r".*no `.*_dataloader`.*",
                    r".*Your `IterableDataset` has `__len__` defined.*"):
        warnings.filterwarnings("ignore", message=message)
