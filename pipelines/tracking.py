"""What stages log: ``metrics.jsonl`` always, MLflow unless it is turned off.

A training stage has loggers; of another one the figures of its result are a row each time that it has run.

What MLflow is told besides metrics is kept in ``tracking.json``, so that ``stage=sync-tracking`` can send all of it
later, to a server that was never there.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from callbacks import checkpoint_files as files
from callbacks.config import TrackingConfig
from callbacks.metrics_file import MetricsFile, cut_after, read_rows
from callbacks.mlflow_logger import MLflowLogger
from callbacks.mlflow_run import About, MLflowRun, forget, read_identity
from callbacks.redaction import redact
from callbacks.step_logger import StepLogger
from pipelines.config.schema import STAGES, RunConfig
from pipelines.occupancy import occupied
from pipelines.outcomes import outcome
from pipelines.run_directory import RunDirectory, global_rank, write_atomically
from streamchar.errors import InputError

log = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
ABOUT = "tracking.json"


def open_loggers(cfg: TrackingConfig, directory: RunDirectory, stage: str, step: int | None,
                 params: dict[str, Any] | None = None) -> list[StepLogger]:
    """Loggers that go on after ``step`` (None: a fresh start).

    Args:
        cfg: options of tracking.
        directory, stage: whose.
        params: science settings, sent once; None: as they were told before.
    """
    folder = directory.stage(stage)
    if global_rank() == 0:
        cut_after(folder / METRICS, step)
        if step is None:
            forget(folder)
        told = {"params": _told(folder).get("params", {}) if params is None else params,
                "tags": lineage(directory, stage)}
        write_atomically(folder / ABOUT, json.dumps(told, indent=1, default=str) + "\n")
    loggers: list[StepLogger] = [MetricsFile(folder / METRICS)]
    if cfg.kind == "mlflow":
        tracker = _mlflow(cfg, directory, stage)
        if global_rank() == 0:
            tracker.begin()
        loggers.append(tracker)
    return loggers


def track_outcome(cfg: RunConfig, directory: RunDirectory, seconds: float) -> None:
    """Log what ``cfg.stage`` has made; whatever goes wrong with that costs a warning, for the stage is complete.

    The step of the row counts how often the stage has run, so that its one run shows what has changed.
    """
    tracking, folder = cfg.callbacks.tracking, directory.stage(cfg.stage)
    try:
        found = outcome(cfg, directory)
        with occupied(folder):  # another process of the same encoding sends the same
            tags = {"preset": cfg.preset, "seed": str(cfg.seed), **found.tags, **lineage(directory, cfg.stage)}
            write_atomically(folder / ABOUT, json.dumps({"tags": tags, "files": found.files}, indent=1) + "\n")
            rows = read_rows(folder / METRICS)
            loggers: list[StepLogger] = [MetricsFile(folder / METRICS)]
            if tracking.kind == "mlflow":
                tracker = _mlflow(tracking, directory, cfg.stage)
                tracker.begin()
                loggers.append(tracker)
            for logger in loggers:
                logger.log_metrics({**found.figures, "perf/stage_s": seconds}, rows[-1]["step"] + 1 if rows else 1)
                logger.finish("FINISHED")
    except Exception as error:
        log.warning("%s is complete, but what it has made is not logged: %s: %s", cfg.stage, type(error).__name__,
                    redact(str(error))[:200])


def lineage(directory: RunDirectory, stage: str) -> dict[str, str]:
    """What a stage is made from: the newest checkpoint of every earlier one, with its hash, and its MLflow run."""
    tags = {"stage": stage}
    for earlier in STAGES[:STAGES.index(stage)]:
        folder = directory.stage(earlier)
        complete = [p for p in files.folders(folder / "checkpoints") if (p / files.MARKER).exists()]
        if complete:
            state = files.read_marker(complete[-1])["files"][files.STATE]
            tags[f"made_from.{earlier}"] = f"{complete[-1]} sha256 {state['sha256']}"
        if run := read_identity(folder).get("run_id"):
            tags[f"made_from.{earlier}.run"] = str(run)
    return tags


def sync_tracking(cfg: RunConfig) -> list[str]:
    """Send what the run's stages could not: rows, samples, tags and how they ended; one line for every stage.

    Raises:
        InputError: where tracking is off, there is nothing, or the server cannot be reached.
    """
    tracking, directory = cfg.callbacks.tracking, RunDirectory.of(cfg)
    stages = [stage for stage in STAGES if directory.has(stage, METRICS)]
    if tracking.kind != "mlflow" or not stages:
        raise InputError(f"nothing to send: {directory.path} holds no {METRICS}" if not stages else
                         "callbacks.tracking.kind=off: say callbacks.tracking.kind=mlflow to send what there is")
    return [f"{stage}: {_sync(tracking, directory, stage)}" for stage in stages]


def _sync(cfg: TrackingConfig, directory: RunDirectory, stage: str) -> str:
    folder = directory.stage(stage)
    try:
        with occupied(folder):
            tracker = _mlflow(cfg, directory, stage)
            tracker.begin()
            for path in sorted((folder / "samples").glob("*.*")):
                tracker.log_file(path, "samples")
            status = "FINISHED" if (folder / "complete.json").exists() else "KILLED"
            tracker.finish(status)
    except InputError:
        return "is at work, and sends by itself"
    if not tracker.in_time:
        raise InputError(f"{stage} could not be sent: see the warning above; the server may be away, or "
                         f"callbacks.tracking.finish_s={cfg.finish_s:g} too short")
    return f"sent, {status}"


def _mlflow(cfg: TrackingConfig, directory: RunDirectory, stage: str) -> MLflowLogger:
    folder = directory.stage(stage)
    told = _told(folder)
    kept = [*(folder / name for name in ("config.yaml", "provenance.json", *told.get("files", []))),
            *sorted(folder.glob("config_diff_*.txt")), *sorted(folder.glob("difference_*.patch"))]
    about = About(told.get("params", {}), told.get("tags", {}))
    run = MLflowRun(cfg.uri, directory.root, folder, cfg.experiment, f"{directory.name}/{stage}", about)
    return MLflowLogger(run, folder / METRICS, cfg.finish_s, kept)


def _told(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / ABOUT).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
