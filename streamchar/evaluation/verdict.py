"""Measured lines with limits: which hold, which fail, which are only told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """One figure and what it must be.

    most, least: the limits, None where there is none; a line without limits is only told. A limited figure that is not
    finite fails. note: what the figure is and what the limit was made from.
    """

    group: str
    name: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the limits hold; None where there is none."""
        if self.most is None and self.least is None:
            return None
        return (math.isfinite(self.value) and (self.most is None or self.value <= self.most)
                and (self.least is None or self.value >= self.least))

    def limit(self) -> str:
        """The limits in words."""
        parts = [f"at most {_figure(self.most, self.unit)}"] if self.most is not None else []
        parts += [f"at least {_figure(self.least, self.unit)}"] if self.least is not None else []
        return ", ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """For JSON; a figure that is not finite becomes null."""
        value = self.value if math.isfinite(self.value) else None
        return {"group": self.group, "name": self.name, "value": value, "unit": self.unit, "most": self.most,
                "least": self.least, "passed": self.passed, "note": self.note}


def failed(lines: Sequence[Line]) -> list[Line]:
    """The lines whose limits do not hold."""
    return [line for line in lines if line.passed is False]


def verdict_table(lines: Sequence[Line], title: str) -> Any:
    """A rich table: every line with its figure, its limit and whether it holds."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("line", no_wrap=True)
    for heading in ("figure", "limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("what it says", style="dim")
    marks = {True: "[green]passed[/]", False: "[bold red]FAILED[/]", None: ""}
    group = None
    for line in lines:
        if group is not None and line.group != group:
            table.add_section()
        group = line.group
        table.add_row(line.name, _figure(line.value, line.unit), line.limit(), marks[line.passed], line.note)
    return table


def _figure(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return "no signal"
    if unit == "%":
        return f"{value:.1f} %"
    if unit and unit != "r":
        return f"{value:g} {unit}"
    return f"{value:.3f}"
