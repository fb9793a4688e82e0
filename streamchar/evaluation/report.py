"""The result of an evaluation: one JSON, one table, one page; every number beside what needs no model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streamchar.errors import InputError
from streamchar.evaluation.bootstrap import interval

MODELS = ("student", "teacher", "teacher_euler", "own_head", "given", "no_sink", "open_loop")
CHEATS = ("still", "swapped", "one", "noise")
CHEATING = ("A still picture with true sound, true pictures with another clip's sound, the first clip whatever is "
            "asked for, noise: each must be bad in some row.")
COLUMNS = ("real", "codec", *MODELS, *CHEATS, "baseline")
TITLES = {"real": "real clips", "codec": "codec floor", "student": "student", "teacher": "teacher",
          "teacher_euler": "teacher, few steps", "own_head": "orchestrator's own head", "given": "given clips",
          "no_sink": "without sink", "open_loop": "without pointer", "still": "still picture",
          "swapped": "another's sound", "one": "one sentence", "noise": "noise", "baseline": "no model"}
"""``teacher_euler``: the teacher's own sampler with as many steps as the student. ``own_head``: the orchestrator alone
(``from=orchestrator``), sound without pictures. ``given``: clips of a folder.
``no_sink``, ``open_loop``: the model without its sink, or without its pointer. The cheats: a still picture with true
sound; true pictures with another clip's sound; one clip in place of every other; noise in both."""


@dataclass
class Row:
    """One measure: a value per column that has one, how to read it, and what the column ``baseline`` stands for.

    intervals: 95 %, low and high, for the columns that have several clips: of a bootstrap over them, if not otherwise
    said (docs/evaluation.md).
    """

    group: str
    name: str
    values: dict[str, float]
    unit: str = ""
    better: str = "low"
    note: str = ""
    baseline: str = ""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def text(self, column: str) -> str:
        """The cell, or an en dash where nothing was measured; nan = measured, but there was no signal."""
        value = self.values.get(column)
        if value is None:
            return "\u2013"
        if math.isnan(value):
            return "no signal"
        if self.unit == "frames":
            return f"{value:+.0f}" if value else "0"
        if self.unit == "%":
            return f"{value:.1f} %"
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"

    def spread(self, column: str) -> str:
        """``low .. high`` of the column's interval; empty where there is none, or all clips are equal."""
        low, high = self.intervals.get(column, (0.0, 0.0))
        if low == high:
            return ""
        digits = 0 if self.unit in ("%", "frames") else 3 if max(abs(low), abs(high)) < 10 else 1
        return f"{low:.{digits}f} .. {high:.{digits}f}" if math.isfinite(low + high) else ""

    def remark(self) -> str:
        """The note, and what the column without a model stands for where it holds a value."""
        beside = f"no model: {self.baseline}" if self.baseline and "baseline" in self.values else ""
        return "; ".join(part for part in (self.note, beside) if part)


@dataclass
class ClipRow:
    """One held-out clip: what was to be said, what was heard; videos and still pictures of them by column (paths
    relative to the page)."""

    key: str
    text: str
    heard: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    videos: dict[str, str] = field(default_factory=dict)
    posters: dict[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """Everything that an evaluation found.

    facts: what was evaluated (run, weights, steps, clips, seed). curves: named lists of (x, y) per column, drawn on
    the page. notes: sentences that a reader of the numbers must know. pictures: heading -> path relative to the page.
    """

    title: str
    facts: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    clips: list[ClipRow] = field(default_factory=list)
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)

    def add(self, group: str, name: str, values: Mapping[str, float | None],
            intervals: Mapping[str, tuple[float, float]] | None = None, **more: str) -> None:
        """Add a measure; columns whose value is None were not measured."""
        self.rows.append(Row(group, name, {k: float(v) for k, v in values.items() if v is not None}, **more,
                             intervals=dict(intervals or {})))

    def measure(self, group: str, name: str, clips: Mapping[str, Sequence[float]],
                beside: Mapping[str, float] | None = None, **more: str) -> None:
        """Add the mean over clips of a measure with its bootstrap interval.

        clips: column -> a value per clip; nan (no signal) is left out. beside: values that are no mean over clips.
        """
        values, intervals = dict(beside or {}), {}
        for column, found in clips.items():
            kept = np.asarray([v for v in found if math.isfinite(v)])
            values[column] = float(kept.mean()) if len(kept) else float("nan")
            if len(kept) > 1:
                intervals[column] = interval(kept)
        self.add(group, name, values, intervals, **more)

    def note(self, key: str, column: str, numbers: Mapping[str, float], heard: str | None = None) -> None:
        """Write numbers, and what was heard, under a clip's video."""
        for row in self.clips:
            if row.key == key:
                row.numbers.setdefault(column, {}).update(numbers)
                if heard is not None:
                    row.heard[column] = heard

    def columns(self, cheats: bool = False) -> list[str]:
        """Columns that hold at least one value, in order; ``cheats``: those that must look bad, beside the real."""
        held = [c for c in COLUMNS if any(c in r.values for r in self.rows)]
        if cheats:
            return [c for c in held if c in ("real", "codec", *CHEATS)] if set(held) & set(CHEATS) else []
        return [c for c in held if c not in CHEATS]

    def metrics(self) -> dict[str, float]:
        """Flat names for a dashboard: ``eval/GROUP/NAME/COLUMN``; values without a signal are left out."""
        return {re.sub(r"[^\w/-]+", "_", f"eval/{r.group}/{r.name}/{c}"): v for r in self.rows
                for c, v in r.values.items() if math.isfinite(v)}

    def to_json(self) -> dict[str, Any]:
        """What ``report.json`` holds; nan becomes null."""
        return _finite({"title": self.title, "facts": self.facts, "metrics": self.metrics(),
                        "rows": [asdict(r) for r in self.rows], "clips": [asdict(c) for c in self.clips],
                        "curves": self.curves, "notes": self.notes, "pictures": self.pictures})

    def save(self, folder: Path) -> None:
        """Write ``report.json``, ``table.txt`` and ``index.html``."""
        from rich.console import Console

        from streamchar.evaluation.page import page

        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n")
        with (folder / "table.txt").open("w", encoding="utf-8") as file:
            Console(file=file, width=self.width()).print(self.table())
        (folder / "index.html").write_text(page(self), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Report:
        """What :meth:`save` wrote.

        Raises:
            InputError: where ``report.json`` is missing, damaged or of another version.
        """
        path = folder / "report.json"
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            rows = [Row(**{**row, "values": _nan(row["values"])}) for row in saved["rows"]]
            curves = {name: {c: [(float(x), _nan(y)) for x, y in line] for c, line in lines.items()}
                      for name, lines in saved["curves"].items()}
            clips = [ClipRow(**{**clip, "numbers": _nan(clip["numbers"])}) for clip in saved["clips"]]
            return cls(saved["title"], saved["facts"], rows, clips, curves, saved["notes"],
                       dict(saved.get("pictures", {})))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{path} cannot be read as an evaluation's report ({type(error).__name__}: {error}); "
                             "stage=evaluate writes it anew") from error

    def width(self) -> int:
        """Characters across that the table needs, so that its remarks stay readable."""
        return 100 + 17 * len(self.columns())

    def table(self) -> Any:
        """Measures down, columns across, remarks at the end; below it the cheats, where they were scored."""
        from rich.console import Group

        tables = [self._table(self.columns(), self.title, "\n".join(self.notes))]
        if self.columns(cheats=True):
            tables.append(self._table(self.columns(cheats=True), "What must look bad", CHEATING))
        return Group(*tables)

    def _table(self, columns: list[str], title: str, caption: str) -> Any:
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(title), caption=escape(caption), caption_justify="left")
        table.add_column("measure", no_wrap=True)
        for column in columns:
            table.add_column(TITLES[column], justify="right", no_wrap=True)
        cheats = any(c in CHEATS for c in columns)
        if not cheats:
            table.add_column("what it says", style="dim")
        group = None
        judged = [c for c in columns if c in CHEATS] if cheats else columns
        for row in self.rows:
            if not any(c in row.values for c in judged):
                continue
            if row.group != group:
                table.add_section()
                group = row.group
                table.add_row(f"[bold dim]{escape(group)}[/]")
            cells = [row.text(c) + (f"\n[dim]{row.spread(c)}[/]" if c in MODELS and row.spread(c) else "")
                     for c in columns]
            table.add_row(f"  {escape(row.name)}", *cells, *([] if cheats else [escape(row.remark())]))
        return table


def _nan(value: Any) -> Any:
    """The reverse of :func:`_finite`."""
    if isinstance(value, dict):
        return {k: _nan(v) for k, v in value.items()}
    return float("nan") if value is None else value


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
