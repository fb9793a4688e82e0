"""``metrics.jsonl``: one JSON object per logged step, readable by anything, needing no server."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from callbacks.step_logger import StepLogger

log = logging.getLogger(__name__)

HELD = 10_000
"""The most rows that wait for room on a full disk; older ones are lost."""


class MetricsFile(StepLogger):
    """Appends ``{"step": N, "time": seconds since 1970, "train/loss": ...}`` lines, each handed over at once, so that
    everybody can read it and no death of this process loses it; the disk is waited for in :meth:`sync` alone.

    A value that is not finite is written as null, since JSON has no other word for it. A full disk costs one warning;
    the rows are kept until there is room again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._held: deque[str] = deque(maxlen=HELD)
        self._warned = self._unsynced = False

    def write(self, step: int, row: dict[str, float]) -> None:
        line = {"step": step, "time": round(time.time(), 3), **{k: _number(v) for k, v in sorted(row.items())}}
        self._held.append(json.dumps(line) + "\n")
        self._append()

    @rank_zero_only
    def sync(self) -> None:
        if self._held:
            self._append()
        if not self._unsynced:
            return
        self._unsynced = False
        try:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            self._warn(error)

    def _append(self) -> None:
        """Write the rows that are held: all of them or none, for half a line would spoil the next."""
        data = "".join(self._held).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                end = file.tell()
                if file.write(data) < len(data):
                    file.truncate(end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._warn(error)
            return
        self._held.clear()
        self._unsynced = True

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            log.warning("%s cannot be written (%s): rows from step %d on are kept in memory and written when there is "
                        "room", self.path, error, self._step)
        self._warned = True


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.8g}")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """One row for every step of a metrics file; a line cut by a crash is left out.

    A step has two lines where a process stopped after it and the next one made up for its validation.
    """
    rows: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        if (row := _row(line)) is not None:
            rows[row["step"]] = rows.get(row["step"], {}) | row
    return list(rows.values())


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


class RowsReader:
    """Follows a metrics file: rows are looked at, and passed only when they have been dealt with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = self._next = 0

    def peek(self, most: int) -> list[dict[str, Any]]:
        """Up to ``most`` of the next whole rows; a line that is still being written is none yet."""
        rows: list[dict[str, Any]] = []
        if not self.path.exists():
            return rows
        with self.path.open("rb") as file:
            file.seek(self._at)
            while len(rows) < most and (line := file.readline()).endswith(b"\n"):
                self._next = file.tell()
                row = _row(line.decode("utf-8", "replace"))
                if row is not None:
                    rows.append(row)
        return rows

    def advance(self) -> None:
        """Pass what :meth:`peek` has shown."""
        self._at = self._next


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
