"""A run remembers its preset and the export it began from: ``stage=stream name=mine`` need not repeat them."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.compose import read_yaml
from pipelines.config.grammar import CommandLine
from pipelines.config.places import CHECKOUT


def recall(line: CommandLine) -> str | None:
    """Set ``preset`` (where a name is given) and ``init`` from the run's latest ``config.yaml``, if they are not given.

    Returns:
        One line that says so, or None.
    """
    given = line.overrides
    name = given.get("name") or given.get("preset") or "demo"
    wanted = [key for key in ("preset", "init") if key not in given and (key == "init" or "name" in given)]
    root = Path(line.overrides["root"]) if "root" in line.overrides else CHECKOUT / "runs"
    configs = sorted((root / name).glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    saved = read_yaml(configs[-1], []) if configs else None
    found = {key: str(saved[key]) for key in wanted if saved and saved.get(key)}
    for key, value in found.items():
        given[key], line.spelled[key] = value, key
    told = " ".join(f"{key}={value}" for key, value in found.items())
    return f"{told}, with which the run {name} was made" if told else None
