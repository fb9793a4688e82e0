"""What a training stage says at its end: its held-out figures at the start and at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from callbacks.metrics_file import read_rows

_SYSTEMS = ("student", "teacher_few", "teacher_euler")


def held_out(metrics: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first and the last row of ``metrics.jsonl`` with held-out figures; empty where there is none."""
    rows = [row for row in read_rows(metrics) if any(key.startswith("eval/") for key in row)]
    return (rows[0], rows[-1]) if rows else ({}, {})


def print_closing(stage: str, metrics: Path, console: Console) -> None:
    """One line per loss, or for a distilled student a table beside the undistilled teacher at its number of steps."""
    first, last = held_out(metrics)
    if not last:
        console.print(f"{stage}: no validation")
    elif any(key.startswith("eval/student_") for key in last):
        console.print(_students(stage, first, last))
    else:
        for key in ("eval/loss", "eval/audio", "eval/video"):
            if key in last and key in first:
                console.print(f"{stage}: validation {key.removeprefix('eval/')} {_figure(first[key])} at step "
                              f"{first['step']}, {_figure(last[key])} at step {last['step']}")
        if "pointer/error_units" in last and "pointer/constant_guess_units" in last:
            console.print(f"{stage}: pointer error {_figure(last['pointer/error_units'])} units, constant guess "
                          f"{_figure(last['pointer/constant_guess_units'])}")


def _students(stage: str, first: dict[str, Any], last: dict[str, Any]) -> Table:
    measures = [key.removeprefix("eval/student_") for key in last if key.startswith("eval/student_")]
    others = [s for s in _SYSTEMS[1:] if any(f"eval/{s}_{m}" in last for m in measures)]
    table = Table(title=f"{stage}: held-out scores at the same number of steps, lower is better", title_justify="left")
    table.add_column("measure")
    for heading in (f"student, step {first['step']}", f"student, step {last['step']}",
                    *(s.replace("_", ", ") for s in others)):
        table.add_column(heading, justify="right")
    for m in measures:
        table.add_row(m.replace("_", " "), _figure(first.get(f"eval/student_{m}")), _figure(last[f"eval/student_{m}"]),
                      *(_figure(last.get(f"eval/{s}_{m}")) for s in others))
    return table


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"
