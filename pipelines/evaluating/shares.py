"""Rows of shares that are pooled over streams, and of their differences, with intervals over clips.

A clip's streams with several seeds are drawn together: they are not independent.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from streamchar.evaluation.bootstrap import interval
from streamchar.evaluation.report import MODELS, Report

Parts = dict[str, list[tuple[str, float, float]]]
"""Per column the clip, a part and its whole, of every stream."""


def add_shares(report: Report, group: str, name: str, parts: Parts, **more: str) -> None:
    """A row of parts of wholes in %."""
    values, intervals = {}, {}
    for column, rows in parts.items():
        table = np.array([*by_clip(rows).values()])
        values[column] = _percent(table)
        if len(table) > 1:
            intervals[column] = interval(table, _percent)
    report.add(group, name, values, intervals, unit="%", **more)


def points_above(report: Report, errors: Parts) -> None:
    """Points of word errors of each model above the codec floor, and above the teacher.

    Both columns are drawn clip by clip: clips that are hard for both widen no interval. ``errors``: wrong words of all.
    """
    sums = {column: by_clip(rows) for column, rows in errors.items()}
    for beside, other in (("codec", "the codec floor"), ("teacher", "the teacher")):
        values, intervals = {}, {}
        for column in [c for c in sums if c in MODELS and c != beside]:
            both = [(*mine, *sums[beside][clip]) for clip, mine in sums[column].items() if clip in sums.get(beside, {})]
            if both:
                values[column] = _difference(np.array(both))
            if len(both) > 1:
                intervals[column] = interval(np.array(both), _difference)
        if values:
            report.add("words", f"word errors above {other}", values, intervals, unit="%",
                       note="points; the interval is of the difference, clip by clip")


def by_clip(rows: Iterable[tuple[str, float, float]]) -> dict[str, tuple[float, float]]:
    """Parts and wholes summed over each clip's streams."""
    sums: dict[str, tuple[float, float]] = {}
    for clip, part, whole in rows:
        before = sums.get(clip, (0.0, 0.0))
        sums[clip] = before[0] + part, before[1] + whole
    return sums


def _percent(table: NDArray[np.float64]) -> float:
    """(clips, 2) parts and wholes -> the pooled share in %; nan of nothing."""
    part, whole = table.sum(0)
    return 100 * float(part / whole) if whole else float("nan")


def _difference(table: NDArray[np.float64]) -> float:
    """(clips, 4) parts and wholes of two columns -> the difference of their pooled shares in points."""
    return _percent(table[:, :2]) - _percent(table[:, 2:])
