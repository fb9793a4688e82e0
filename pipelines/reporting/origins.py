"""Of what the runs were made, how far each has come, and in which settings they differ: the tables of the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipelines.chain import clock
from pipelines.completion import reads
from pipelines.config.schema import STAGES, TRAINING
from pipelines.reporting.reading import RunFound

Table = list[tuple[str, list[str]]]
"""Rows: a name and a cell for each run (and more where the heading says so)."""
NONE = "\u2013"
MOST_DIGITS = 48


def origins(runs: list[RunFound]) -> Table:
    """Preset, export begun from, code, machine, versions and dates of each run; several values where stages differ."""
    facts: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("code", _code), ("machine", _machine), ("python", lambda p: str(p.get("python", ""))),
        ("all versions (lock)", lambda p: str(p.get("lock_sha256") or "")[:10])]
    table = [(name, [_distinct([fact(found.provenance) for found in run.stages.values()]) for run in runs])
             for name, fact in facts]
    dates = [_dates([str(found.provenance.get("date", "")) for found in run.stages.values()]) for run in runs]
    table.append(("made (UTC)", dates))
    given: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("preset", lambda config: str(config.get("preset") or "")), ("begins from", _export)]
    asked = [(name, [_distinct([fact(found.config) for found in run.stages.values()]) for run in runs])
             for name, fact in given]
    return [*asked, *table, *_packages(runs)]


def progress(runs: list[RunFound]) -> Table:
    """How far each stage of each run has come."""
    return [(stage, [_state(run, stage) for run in runs]) for stage in STAGES if any(stage in r.stages for r in runs)]


def _state(run: RunFound, stage: str) -> str:
    if stage not in run.stages:
        return "not run"
    found = run.stages[stage]
    last, whole = found.steps(stage)
    steps = f"{last:,} of {whole:,} steps" if stage in TRAINING else ""
    state = f"complete ({clock(found.mark.get('seconds', 0.0))})" if found.mark else "not complete"
    return ", ".join(filter(None, (state, steps)))


def setting_differences(runs: list[RunFound]) -> list[tuple[str, list[str], str]]:
    """Settings on which a stage's result depends and in which the runs differ: key, each run's value, the stages.

    Stages keep the configuration that they ran with, so one run may hold two values of a key; such are two rows.
    """
    found: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for stage in STAGES:
        groups = (*reads(stage), *(("trainer",) if stage in TRAINING else ()))
        have = [run.stages[stage].config if stage in run.stages else None for run in runs]
        if sum(config is not None for config in have) < 2:
            continue
        keys = {key: None for config in have if config for key in config
                if any(key == g or key.startswith(g + ".") for g in groups)}
        for key in keys:
            values = [NONE if config is None else _shown(config.get(key, "(not there)")) for config in have]
            if len({value for value, config in zip(values, have, strict=True) if config is not None}) > 1:
                found.setdefault((key, tuple(values)), []).append(stage)
    return [(key, list(values), ", ".join(stages)) for (key, values), stages in sorted(found.items())]


def _packages(runs: list[RunFound]) -> Table:
    """Packages whose versions differ between runs, by the newest stage of each that says."""
    told = [[v for found in run.stages.values() if (v := found.provenance.get("versions"))] for run in runs]
    newest = [versions[-1] for versions in told if versions]
    if len(newest) < len(runs):
        return []
    return [(name, [str(v.get(name, NONE)) for v in newest])
            for name in sorted({name for versions in newest for name in versions})
            if len({v.get(name) for v in newest}) > 1]


def _dates(dates: list[str]) -> str:
    days = sorted(date[:16].replace("T", " ") for date in dates if date)
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else NONE


def _export(config: dict[str, Any]) -> str:
    """The setting that names an exported character, of which ``init=`` takes precedence."""
    return next((f"{key}={config[key]}" for key in ("init", "init_speech") if config.get(key)), "")


def _code(provenance: dict[str, Any]) -> str:
    code = provenance.get("code") or {}
    if not code.get("revision"):
        return ""
    return code["revision"][:10] + (f" + changes {str(code['difference_sha256'])[:6]}" if code.get("dirty") else "")


def _machine(provenance: dict[str, Any]) -> str:
    hardware = provenance.get("hardware") or {}
    gpus = [str(gpu) for gpu in hardware.get("gpus", [])]
    named = [f"{gpus.count(gpu)} x {gpu}" for gpu in dict.fromkeys(gpus)]
    cpu = f"{hardware['cores']} cores {hardware['processor']}" if "cores" in hardware else ""
    return ", ".join(filter(None, (*named, cpu)))


def _distinct(values: list[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, values))) or NONE


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
    return text if len(text) <= MOST_DIGITS else f"{text[:MOST_DIGITS // 2]} … {text[-MOST_DIGITS // 2:]}"
