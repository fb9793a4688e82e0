"""The evaluations' tables in one: measures down, the runs' columns across."""

from __future__ import annotations

from html import escape

from pipelines.reporting.reading import RunFound
from streamchar.evaluation.plot import plot
from streamchar.evaluation.report import CHEATS, COLUMNS, MODELS, TITLES, Report, Row

Column = tuple[str, str, str]
"""Run whose values are shown, column of its report, heading."""


def numbers(runs: list[RunFound]) -> str:
    """The table; empty where no run was evaluated."""
    reports = {run.name: run.report for run in runs if run.report is not None}
    if not reports:
        return ""
    rows = {name: {(r.group, r.name): r for r in report.rows} for name, report in reports.items()}
    columns = _columns(reports, rows)
    groups: dict[str, dict[str, Row]] = {}  # runs may hold different rows: each comes with its group, once
    for report in reports.values():
        for row in report.rows:
            groups.setdefault(row.group, {}).setdefault(row.name, row)
    head = "".join(f"<th>{heading}</th>" for _, _, heading in columns)
    body = []
    for group, named in groups.items():
        lines = []
        for name, row in named.items():
            shown = [(rows[run].get((group, name)), column) for run, column, _ in columns]
            if any(held is not None and column in held.values for held, column in shown):
                cells = "".join(_cell(held, column) for held, column in shown)
                lines.append(f"<tr><td>{escape(name)}</td>{cells}<td class=note>{escape(row.remark())}</td></tr>")
        if lines:
            body += [f"<tr class=group><td colspan={len(columns) + 2}>{escape(group)}</td></tr>", *lines]
    return (f"<div class=scroll><table><thead><tr><th>measure</th>{head}<th class=note>what it says</th></tr></thead>"
            f"<tbody>{''.join(body)}</tbody></table></div>")


def facts(runs: list[RunFound]) -> list[tuple[str, list[str]]]:
    """What was evaluated in each run."""
    names = dict.fromkeys(str(key) for run in runs if run.report for key in run.report.facts)
    return [(name, [str(run.report.facts.get(name, "\u2013")) if run.report else "not evaluated" for run in runs])
            for name in names]


def stream_curves(runs: list[RunFound], colours: dict[str, str]) -> list[str]:
    """The evaluations' curves over stream time, one plot for every curve and model, one line per run."""
    names = dict.fromkeys(name for run in runs if run.report for name in run.report.curves)
    found = []
    for name in names:
        for column in MODELS:
            lines = {run.name: line for run in runs if run.report
                     and (line := run.report.curves.get(name, {}).get(column))}
            found.append(plot(f"{TITLES[column]}: {name}", lines, {run: run for run in lines}, colours))
    return [curve for curve in found if curve]


def _columns(reports: dict[str, Report], rows: dict[str, dict[tuple[str, str], Row]]) -> list[Column]:
    """Each column of each run, side by side; what is equal in all that have it (the same clips) once."""
    found: list[Column] = []
    for column in (*MODELS, *(c for c in COLUMNS if c not in (*MODELS, *CHEATS))):
        have = [run for run, report in reports.items() if column in report.columns()]
        texts = {tuple((key, row.text(column)) for key, row in sorted(rows[run].items()) if column in row.values)
                 for run in have}
        title = escape(TITLES[column])
        if len(have) > 1 and len(texts) == 1 and column not in MODELS:
            found.append((have[0], column, f"{title}<small>equal in {len(have)} runs</small>"))
        else:
            found += [(run, column, f"{title}<small>{escape(run)}</small>") for run in have]
    return found


def _cell(row: Row | None, column: str) -> str:
    text, spread = (row.text(column), row.spread(column)) if row is not None else ("\u2013", "")
    return f"<td class={'model' if column in MODELS else 'other'}>{escape(text)}<small>{escape(spread)}</small></td>"
