"""What the folders of several runs hold, and what is missing in each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callbacks.metrics_file import read_rows
from pipelines.completion import read_mark
from pipelines.config.compose import read_yaml
from pipelines.config.errors import nearest
from pipelines.config.schema import STAGES, TRAINING
from pipelines.resume import flat
from pipelines.run_directory import RunDirectory
from pipelines.tracking import METRICS
from streamchar.errors import InputError
from streamchar.evaluation.report import Report


@dataclass
class StageFound:
    """A stage's files: configuration (flat), provenance, mark of completion, rows of figures; empty where missing."""

    config: dict[str, Any]
    provenance: dict[str, Any]
    mark: dict[str, Any] | None
    rows: list[dict[str, Any]]

    def steps(self, stage: str) -> tuple[int, int]:
        """The last logged step of a training stage, and the step at which it ends (0: not known)."""
        whole, limit = self.config.get(f"stages.{stage}.steps", 0), self.config.get("trainer.max_steps")
        return (self.rows[-1]["step"] if self.rows else 0), min(whole, limit or whole)


@dataclass
class RunFound:
    """A run: its stages, its evaluation, and what a reader of the page must know to be missing."""

    directory: RunDirectory
    stages: dict[str, StageFound]
    report: Report | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.directory.name


def read_runs(root: Path, names: list[str]) -> list[RunFound]:
    """The named runs in their order.

    Raises:
        InputError: naming the runs that there are, where one is not.
    """
    known = sorted({path.parent.parent.name for stage in STAGES for path in root.glob(f"*/{stage}/config.yaml")})
    problems = [f"runs={name}: {root} holds no run of this name{nearest(name, known)}" for name in names
                if name not in known]
    if problems:
        raise InputError("\n".join([*problems, f"there are {', '.join(known)}" if known else
                                    "there is no run at all: give root=FOLDER, the folder of all runs"]))
    runs = [_read(RunDirectory(root, name)) for name in names]
    wanted = [stage for stage in STAGES if any(stage in run.stages for run in runs)]
    for run in runs:
        run.missing = [line for stage in wanted for line in _missing(run, stage)] + run.missing
    return runs


def _read(directory: RunDirectory) -> RunFound:
    found = RunFound(directory, {})
    for stage in STAGES:
        folder = directory.stage(stage)
        if not (folder / "config.yaml").is_file():
            continue
        config = read_yaml(folder / "config.yaml", found.missing) or {}
        found.stages[stage] = StageFound(flat(config), _json(folder / "provenance.json"),
                                         read_mark(directory, stage), read_rows(folder / METRICS))
    if "evaluate" in found.stages:
        try:
            found.report = Report.load(directory.stage("evaluate"))
        except InputError as error:
            found.missing.append(str(error))
    return found


def _missing(run: RunFound, stage: str) -> list[str]:
    if stage not in run.stages:
        return [f"{stage}: not run"]
    found, lines = run.stages[stage], []
    if found.mark is None:
        lines.append(f"{stage}: not complete; it runs, was stopped, or failed")
    if stage in TRAINING and not found.rows:
        lines.append(f"{stage}: no figures, {METRICS} is missing or empty")
    if not found.provenance:
        lines.append(f"{stage}: provenance.json is missing or damaged: what it was made with is not known")
    return lines


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
