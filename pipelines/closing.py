"""What a training stage says at its end: its held-out figures at the start and at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from callbacks.metrics_file import read_rows

_OTHERS = {"teacher_few": "teacher, student's sampler", "teacher_euler": "teacher, Euler, guided",
           "teacher_full": "teacher, all steps, other noise"}
_MEASURES = ("energy_video", "energy_audio", "frechet_video", "frechet_audio", "distance_video", "distance_audio",
             "lag_frames", "desync", "spread_video", "spread_audio")


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
        if "pointer/error_words" in last and "pointer/constant_rate_error" in last:
            console.print(f"{stage}: pointer error {_figure(last['pointer/error_words'])} words, constant rate "
                          f"{_figure(last['pointer/constant_rate_error'])}")


def _students(stage: str, first: dict[str, Any], last: dict[str, Any]) -> Table:
    measures = [m for m in _MEASURES if f"eval/student_{m}" in last]
    others = [s for s in _OTHERS if any(f"eval/{s}_{m}" in last for m in measures)]
    table = Table(title=f"{stage}: held-out scores, lower is better (spread: 1 is); the undistilled teacher in "
                  "few steps and in all",
                  title_justify="left")
    table.add_column("measure", no_wrap=True)
    for heading in (f"student, step {first['step']}", f"student, step {last['step']}",
                    *(_OTHERS[s] for s in others)):
        table.add_column(heading, justify="right")
    for m in measures:
        table.add_row(m.replace("_", " "), _figure(first.get(f"eval/student_{m}")), _figure(last[f"eval/student_{m}"]),
                      *(_figure(last.get(f"eval/{s}_{m}")) for s in others))
    return table


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"
