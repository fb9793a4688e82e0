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


def micro_rows(size: int, parts: int) -> list[slice]:
    """Where ``size`` rows are cut into ``parts`` of equal size (the last may be smaller), in their order."""
    step = -(-size // parts)
    return [slice(i, min(i + step, size)) for i in range(0, size, step)]


def micro_batches(batch: Batch, parts: int) -> list[Batch]:
    """``batch`` cut as :func:`micro_rows` says."""
    return [_rows(batch, at) for at in micro_rows(len(batch), parts)]  # type: ignore[arg-type]
