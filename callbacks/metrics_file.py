"""``metrics.jsonl``: one JSON object per logged step, readable by anything, needing no server."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any

from callbacks.step_logger import StepLogger

log = logging.getLogger(__name__)


class MetricsFile(StepLogger):
    """Appends ``{"step": N, "time": seconds since 1970, "train/loss": ...}`` lines, each flushed as it is written.

    A value that is not finite is written as null, since JSON has no other word for it. A full disk costs one warning.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._warned = False

    def write(self, step: int, row: dict[str, float]) -> None:
        line = {"step": step, "time": round(time.time(), 3), **{k: _number(v) for k, v in sorted(row.items())}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            if not self._warned:
                log.warning("%s cannot be written (%s): steps are missing from it from %d on", self.path, error, step)
            self._warned = True


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.8g}")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All whole rows of a metrics file; a line cut by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows


def cut_after(path: Path, step: int | None) -> None:
    """Drop the rows beyond ``step``, where training resumes (None: all of them), so that no step appears twice."""
    if not path.exists():
        return
    rows = [] if step is None else [row for row in read_rows(path) if row["step"] <= step]
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
