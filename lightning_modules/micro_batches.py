"""Splits a batch into micro-batches, so that gradients can be accumulated inside an iteration."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from torch import Tensor

Batch = TypeVar("Batch")


def _rows(value: Any, at: slice) -> Any:
    if isinstance(value, Tensor | list):
        return value[at]
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: _rows(getattr(value, f.name), at) for f in fields(value)})
    return value


def micro_batches(batch: Batch, parts: int) -> list[Batch]:
    """``parts`` batches of equal size (the last may be smaller) with the same rows in the same order."""
    size = len(batch)  # type: ignore[arg-type]
    step = -(-size // max(parts, 1))
    return [_rows(batch, slice(i, i + step)) for i in range(0, size, step)]
