"""The loggers of a training stage: ``metrics.jsonl`` always, MLflow unless it is turned off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from callbacks.config import TrackingConfig
from callbacks.metrics_file import MetricsFile, cut_after
from callbacks.mlflow_logger import MLflowLogger
from callbacks.mlflow_run import MLflowRun, forget
from callbacks.step_logger import StepLogger
from pipelines.run_directory import global_rank


def open_loggers(cfg: TrackingConfig, root: Path, name: str, stage: str, folder: Path, step: int | None,
                 params: dict[str, Any]) -> list[StepLogger]:
    """Loggers that go on after ``step`` (None: a fresh start).

    Args:
        cfg: options of tracking.
        root, name, stage, folder: of the run and its stage.
        params: science settings, sent once.
    """
    metrics = folder / "metrics.jsonl"
    if global_rank() == 0:
        cut_after(metrics, step)
        if step is None:
            forget(folder)
    loggers: list[StepLogger] = [MetricsFile(metrics)]
    if cfg.kind == "mlflow":
        run = MLflowRun(cfg.uri, root, folder, cfg.experiment, f"{name}/{stage}", params,
                        [folder / "config.yaml", folder / "provenance.json"])
        tracker = MLflowLogger(run, metrics, cfg.finish_s)
        if global_rank() == 0:
            tracker.begin()
        loggers.append(tracker)
    return loggers
