"""Whether two training stages ended alike: weights, optimisers, averages, data, memories and metrics, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from callbacks import checkpoint_files as files
from callbacks.metrics_file import read_rows

_MEASURED = ("time", "perf/", "ckpt/")  # differ from run to run


def assert_same(stage: Path, whole: Path) -> None:
    """Compare the newest checkpoints and ``metrics.jsonl`` of two stage folders."""
    newest = [files.newest_complete(folder / "checkpoints") for folder in (stage, whole)]
    assert newest[0] is not None and newest[1] is not None and newest[0].name == newest[1].name
    names = sorted(files.read_marker(newest[1])["files"])
    assert sorted(files.read_marker(newest[0])["files"]) == names
    for name in names:
        states = [files.load(path, name) for path in newest]
        for state in states:
            state.pop("about", None)  # holds the folder's name
        _equal(*states, where=name)
    assert _figures(stage) == _figures(whole)


def _figures(stage: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.startswith(_MEASURED)} for row in read_rows(stage / "metrics.jsonl")]


def _equal(a: Any, b: Any, where: str) -> None:
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _equal(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for number, (one, other) in enumerate(zip(a, b, strict=True)):
            _equal(one, other, f"{where}[{number}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), f"{where} differs by up to {(a - b).abs().max()}"
    else:
        assert a == b, where
