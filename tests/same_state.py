"""Two ends of the same training, compared bit for bit: checkpoints of all ranks, and the rows of ``metrics.jsonl``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from callbacks import checkpoint_files as files
from callbacks.metrics_file import read_rows

MEASURED = ("perf/", "ckpt/", "time")
"""Figures that are times of this very process."""


def differences(ours: Any, theirs: Any, name: str = "") -> list[str]:
    """Where two nested states differ in any bit, in type or in shape; empty where they do not."""
    if type(ours) is not type(theirs):
        return [f"{name}: {type(ours).__name__} and {type(theirs).__name__}"]
    if isinstance(ours, Tensor):
        same = ours.dtype == theirs.dtype and ours.shape == theirs.shape and torch.equal(_bits(ours), _bits(theirs))
        return [] if same else [f"{name}: tensors differ"]
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return [f"{name}: {sorted(set(map(str, ours)) ^ set(map(str, theirs)))} on one side only"]
        return [d for key in ours for d in differences(ours[key], theirs[key], f"{name}.{key}")]
    if isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            return [f"{name}: {len(ours)} and {len(theirs)} entries"]
        return [d for i, pair in enumerate(zip(ours, theirs, strict=True)) for d in differences(*pair, f"{name}.{i}")]
    return [] if ours == theirs else [f"{name}: {ours!r} and {theirs!r}"]


def _bits(value: Tensor) -> Tensor:
    """The bytes of a tensor, so that not-a-number equals itself and -0.0 does not equal 0.0."""
    return value.contiguous().reshape(-1).view(torch.uint8)


def checkpoint_differences(ours: Path, theirs: Path) -> list[str]:
    """Compare the newest checkpoints of two ``STAGE`` folders, in everything but what names the run and its code."""
    newest = [files.newest_complete(folder / "checkpoints") for folder in (ours, theirs)]
    if newest[0] is None or newest[1] is None:
        return ["a complete checkpoint is missing"]
    names = [{f.name for f in path.glob("*.pt")} for path in newest if path]
    if names[0] != names[1]:
        return [f"files {sorted(names[0])} and {sorted(names[1])}"]
    found = []
    for name in sorted(names[0]):
        states = [files.load(path, name) for path in newest if path]
        for state in states:
            state.pop("about", None)
        found += differences(*states, name)
    return found


def rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of a stage's metrics, without what was measured in seconds."""
    return [{k: v for k, v in row.items() if not k.startswith(MEASURED)} for row in read_rows(folder / "metrics.jsonl")]


def metrics_differences(ours: Path, theirs: Path) -> list[str]:
    """Compare the metrics of two ``STAGE`` folders: the same steps, each once, with the same values."""
    found = []
    broken = [n for n, line in enumerate((ours / "metrics.jsonl").read_text().splitlines()) if not _whole(line)]
    found += [f"metrics.jsonl: line {n} is cut" for n in broken]
    pairs = [rows(folder) for folder in (ours, theirs)]
    steps = [[row["step"] for row in found_rows] for found_rows in pairs]
    if steps[0] != steps[1]:
        return [*found, f"metrics.jsonl: steps {steps[0]} and {steps[1]}"]
    for one, two in zip(*pairs, strict=True):
        found += differences(one, two, f"metrics.jsonl: step {one['step']}")
    return found


def _whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
