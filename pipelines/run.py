"""The command: ``python pipelines/run.py stage=rollout preset=tiny data.batch_size=8``; ``--help`` tells the rest.

Exit codes: 0 done, 2 wrong configuration or input (the message alone), 3 stopped before its end with its state saved,
1 anything else, an interruption too.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console  # noqa: E402

from callbacks import stop_request  # noqa: E402
from pipelines.chain import clock, run_all  # noqa: E402
from pipelines.completion import clear_mark, is_complete, set_mark  # noqa: E402
from pipelines.config.compose import compose, to_yaml  # noqa: E402
from pipelines.config.errors import ConfigError  # noqa: E402
from pipelines.config.grammar import parse  # noqa: E402
from pipelines.config.help import print_help  # noqa: E402
from pipelines.config.recall import recall  # noqa: E402
from pipelines.config.schema import COMMANDS, STAGES, TRAINING, ExportConfig, RunConfig  # noqa: E402
from pipelines.moved_data import restore_data  # noqa: E402
from pipelines.occupancy import occupied  # noqa: E402
from pipelines.run_directory import RunDirectory, global_rank  # noqa: E402
from streamchar.errors import InputError, StreamCharError  # noqa: E402
from streamchar.evaluation.config import EvaluateConfig  # noqa: E402
from streamchar.streaming.config import StreamConfig  # noqa: E402


class StoppedEarly(Exception):
    """A stage saved its state and ended before it was complete, on purpose."""


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; returns the exit code."""
    try:
        _main(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except StreamCharError as error:
        print(error, file=sys.stderr)
        return 1
    except StoppedEarly as stop:
        print(stop)
        return 3
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    return 0


def _main(argv: list[str]) -> None:
    line = parse(argv)
    console = Console(quiet=global_rank() != 0, highlight=False)
    if "--help" in line.flags:
        print_help(line.topic, console)
        return
    recalled = recall(line)
    cfg = compose(line)
    if "--cfg" in line.flags:
        print(to_yaml(_topic(cfg, line.topic)), end="")
        return
    if "--dry-run" in line.flags:
        from pipelines.dry_run.plan import dry_run

        dry_run(cfg, console)
        return
    if not cfg.stage:
        raise ConfigError([f"no stage given: write stage=NAME, one of {' '.join((*STAGES, *COMMANDS))} (--help tells "
                           "more)"])
    _log_to_stdout()
    if cfg.stage == "report":  # of several runs, in none of their folders
        from pipelines.stages.report import run as report

        console.print(f"page: {report(cfg)}", soft_wrap=True)
        return
    restore_data(RunDirectory.of(cfg))
    if recalled:
        console.print(recalled)
    if cfg.stage == "sync-tracking":
        from pipelines.tracking import sync_tracking  # loads the training framework

        for told in sync_tracking(cfg):
            console.print(told, soft_wrap=True)
    elif cfg.stage == "all":
        check_alone(cfg)
        if cfg.origin:
            from pipelines.origins import check_init  # loads torch

            check_init(cfg, RunDirectory.of(cfg))
        several = cfg.trainer.devices > 1
        run_all(cfg, (lambda stage_cfg: run_stage_apart(stage_cfg, argv)) if several else run_stage, console)
    else:
        seconds = run_stage(cfg)
        console.print(f"[green]{cfg.stage}[/] done in {clock(seconds)}: {RunDirectory.of(cfg).stage(cfg.stage)}",
                      soft_wrap=True)


def run_stage(cfg: RunConfig) -> float:
    """Run ``cfg.stage`` in its folder and mark it complete; returns its seconds.

    Raises:
        StoppedEarly: where the stage's ``run`` returned False: out of time or pre-empted, saved, not complete.
    """
    begun = time.monotonic()
    directory = RunDirectory.of(cfg)
    check_inputs(cfg, directory)
    if cfg.stage not in (*TRAINING, "encode") and global_rank() != 0:
        return 0.0  # the other stages are one process's work
    _heed_slurm(cfg.stage)
    # What several processes may do at once: each writes where its own out= says, or what it has claimed.
    alone = nullcontext() if cfg.stage in ("stream", "export", "encode") else occupied(directory.stage(cfg.stage))
    with alone:
        clear_mark(directory, cfg.stage)
        directory.open(cfg.stage, cfg)
        module = "train" if cfg.stage in TRAINING else cfg.stage
        complete = import_module(f"pipelines.stages.{module}").run(cfg, directory)
        seconds = time.monotonic() - begun
        if complete is False:
            raise StoppedEarly(f"{cfg.stage} stopped after {clock(seconds)} before its end; "
                               "the same command goes on from there")
        set_mark(directory, cfg.stage, cfg, seconds)
    if cfg.stage in ("prepare", "encode", "evaluate") and global_rank() == 0:
        from pipelines.tracking import track_outcome  # loads the training framework

        track_outcome(cfg, directory, seconds)
    return seconds


def _heed_slurm(stage: str) -> None:
    """Slurm warns its jobs some minutes before their end: training notes it from now on; a stage that cannot save in
    its middle works on, and what it has finished is found by the next start."""
    if "SLURM_JOB_ID" in os.environ:
        if stage in TRAINING:
            stop_request.early.listen(stop_request.FROM_SLURM)
        else:
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)


def run_stage_apart(cfg: RunConfig, argv: list[str]) -> float:
    """Run a stage of the chain in an own process: its trainer starts further processes of the same command.

    Raises:
        SystemExit: with the stage's exit code, where it failed (its message has been printed).
        StoppedEarly: where it ended before it was complete.
    """
    begun = time.monotonic()
    rest = [a for a in argv if not a.startswith(("stage=", "preset=", "name="))]
    command = [f"stage={cfg.stage}", f"preset={cfg.preset}", f"name={cfg.name}", *rest]
    code = subprocess.run([sys.executable, str(Path(__file__).resolve()), *command], check=False).returncode
    if code:
        raise SystemExit(code)
    if is_complete(RunDirectory.of(cfg), cfg.stage, cfg) is None:
        raise StoppedEarly(f"{cfg.stage} ended before it was complete; the same command goes on from there")
    return time.monotonic() - begun


def check_alone(cfg: RunConfig) -> None:
    """The chain starts its own processes.

    Raises:
        InputError: where a launcher has started several already.
    """
    launchers = (("SLURM_NTASKS", "SLURM_PROCID"), ("WORLD_SIZE", "RANK"))
    started = [int(os.environ.get(count, 1)) for count, rank in launchers if rank in os.environ]
    if max(started, default=1) > 1:
        raise InputError(f"stage=all is one process, but the launcher started {max(started)}; run one stage at a "
                         f"time ({' '.join(cfg.chain)})")


def check_inputs(cfg: RunConfig, directory: RunDirectory) -> None:
    """Refuse a stage whose input is missing before anything heavy is loaded.

    Raises:
        InputError: naming the stage that makes the missing input.
    """
    if cfg.stage == "evaluate" and cfg.evaluate.folder:
        from pipelines.evaluating.given import check_folder

        check_folder(Path(cfg.evaluate.folder))
        return  # clips of a folder need no run
    if cfg.stage == "stream" and cfg.stream.model:
        from pipelines.shipped import model_folder

        model_folder(cfg.stream.model)
        return
    parts: tuple[str, ...] = ()
    if cfg.origin:
        from pipelines.origins import check_init, taken  # loads torch

        check_init(cfg, directory)
        parts = taken(cfg, directory, cfg.stage)
    if cfg.stage == "encode" and cfg.data.shards is None and not cfg.data.latents and not cfg.data.mix:
        directory.input("prepare", "shards")
    if cfg.stage == "encode":
        from pipelines.stages.encode import check_kept  # loads torch

        check_kept(cfg, directory)
    if cfg.stage in (*TRAINING, "evaluate", "inspect"):
        directory.input("encode", "latents")
    # a chain without orchestrator or dmd trains its follower without them, on purpose; so does one with an export
    if cfg.stage == "teacher" and "orchestrator" in cfg.chain and "orchestrator" not in parts:
        directory.input("orchestrator", "checkpoints")
    if cfg.stage in ("dmd", "rollout") and "denoiser" not in parts:
        directory.input("teacher", "checkpoints")
    if cfg.stage == "rollout" and "dmd" in cfg.chain and "denoiser" not in parts:
        directory.input("dmd", "checkpoints")
    if cfg.stage in ("evaluate", "stream", "export"):
        options: EvaluateConfig | StreamConfig | ExportConfig = getattr(cfg, cfg.stage)
        asked = options.from_stage
        given = cfg.stage == "evaluate" and cfg.init  # judged itself, where the run has trained nothing on it
        trained = given or any(directory.has(s, "checkpoints") for s in ("rollout", "dmd", "teacher"))
        if asked in TRAINING or not trained:
            directory.input(asked if asked in TRAINING else "teacher", "checkpoints")


def _log_to_stdout() -> None:
    """The rooms' own messages from level info on, others' from warning on; from rank 0 alone."""
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.WARNING)
    for room in ("pipelines", "callbacks", "datamodules", "lightning_modules", "streamchar"):
        logging.getLogger(room).setLevel(logging.INFO if global_rank() == 0 else logging.ERROR)


def _topic(cfg: RunConfig, topic: str | None) -> object:
    if topic is None:
        return cfg
    value: object = getattr(cfg, topic, None)
    if not hasattr(value, "__dataclass_fields__"):
        raise ConfigError([f"--cfg {topic}: no such group"])
    return value


if __name__ == "__main__":
    sys.exit(main())
