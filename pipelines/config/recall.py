"""A run remembers its preset: ``stage=stream name=mine`` need not repeat the one that made ``mine``."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.compose import read_yaml
from pipelines.config.grammar import CommandLine
from pipelines.config.places import CHECKOUT


def recall_preset(line: CommandLine) -> str | None:
    """Set ``preset`` from the named run's latest ``config.yaml`` where the command line gives a name but no preset.

    Returns:
        One line that says so, or None.
    """
    name = line.overrides.get("name")
    if not name or "preset" in line.overrides:
        return None
    root = Path(line.overrides["root"]) if "root" in line.overrides else CHECKOUT / "runs"
    configs = sorted((root / name).glob("*/config.yaml"), key=lambda path: path.stat().st_mtime)
    saved = read_yaml(configs[-1], []) if configs else None
    if not saved or not saved.get("preset"):
        return None
    line.overrides["preset"] = line.spelled["preset"] = str(saved["preset"])
    return f"preset={saved['preset']}, with which the run {name} was made"
