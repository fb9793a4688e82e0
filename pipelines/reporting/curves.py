"""The training stages' figures over steps, one plot per figure and one line per run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.config.schema import TRAINING
from pipelines.reporting.reading import RunFound
from streamchar.evaluation.plot import Line, plot

MOST_POINTS = 160
"""Points of a line; of more, neighbours are averaged."""
FIRST = ("eval", "train", "pointer", "stream")
"""Namespaces that are open when the page is; the others unfold."""
BESIDE = "eval/teacher_"
"""What a student stands beside: level lines, folded away too."""
LEFT_OUT = ("samples", "ckpt")


def curves(runs: list[RunFound], colours: dict[str, str]) -> dict[str, tuple[list[str], list[str]]]:
    """By stage: the plots of what it is judged by, and the others (yardsticks, stability, speed, machine)."""
    found = {}
    for stage in TRAINING:
        rows = {run.name: run.stages[stage].rows for run in runs if stage in run.stages and run.stages[stage].rows}
        names = sorted({key for each in rows.values() for row in each for key in row if "/" in key}, key=_rank)
        judged: list[str] = []
        ran: list[str] = []
        for name in names:
            lines = {run: [(float(row["step"]), float(row[name])) for row in each if row.get(name) is not None]
                     for run, each in rows.items()}
            drawn = _plot(name, {run: line for run, line in lines.items() if line}, colours)
            opened = name.split("/")[0] in FIRST and not name.startswith(BESIDE)
            (judged if opened else ran).append(drawn)
        if rows:
            found[stage] = (judged, ran)
    return found


def _rank(name: str) -> tuple[int, bool, str]:
    space = name.split("/")[0]
    return (FIRST.index(space) if space in FIRST else len(FIRST)), name not in ("train/loss", "eval/loss"), name


def _plot(name: str, lines: dict[str, Line], colours: dict[str, str]) -> str:
    """One figure; a few values far beyond all others must not flatten the rest, and are said instead."""
    if not lines or name.split("/")[0] in LEFT_OUT:
        return ""
    values = np.array([y for line in lines.values() for _, y in line])
    thin = {run: thinned(line) for run, line in lines.items()}
    shown = np.array([y for line in thin.values() for _, y in line])
    low, high = float(shown.min()), float(np.quantile(shown, 0.98))
    note = ""
    if len(shown) > 20 and shown.max() - low > 3 * (high - low) > 0:
        note = f"cut at {high:.3g}, highest {values.max():.3g}"
    else:
        high = float(shown.max())
    if high == low:
        low, high = min(low, 0.0), max(high, 0.0) or float(low == 0.0)  # a constant beside zero
    pad = 0.04 * (high - low)
    low = 0.0 if 0 <= low < 0.35 * high else low - pad  # near zero, show zero; else the differences
    titles = {run: f"{run} {line[-1][1]:.4g}" for run, line in lines.items()}
    return plot(name, thin, titles, colours, limits=(low, high + pad), note=note)


def thinned(line: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most ``most`` points: means of neighbours; the last value stays, for it is the one that is read."""
    if len(line) <= most:
        return list(line)
    parts = np.array_split(np.asarray(line), most - 1)
    return [(float(x), float(y)) for x, y in (part.mean(0) for part in parts)] + [line[-1]]
