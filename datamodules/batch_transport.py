"""Batches on their way from loader workers: all tensors of one in a single piece of shared memory.

By default every tensor travels with a file descriptor and a handshake of its own, which for a batch of twenty small
tensors costs many times its composition.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import torch
from torch import Tensor

from streamchar.types import ChunkBatch, RolloutBatch

ALIGNED = 64


class _Place(NamedTuple):
    """Where a tensor lies in the shared piece."""

    dtype: torch.dtype
    shape: torch.Size
    begin: int
    size: int


def pack(batch: Any) -> tuple[Any, tuple[Any, Tensor]]:
    """A batch as (function, arguments) that make it again; its tensors lie in one shared tensor of bytes."""
    tensors: list[tuple[Tensor, _Place]] = []
    end = 0

    def place(tensor: Tensor) -> _Place:
        nonlocal end
        size = tensor.element_size() * tensor.numel()
        found = _Place(tensor.dtype, tensor.shape, end, size)
        tensors.append((tensor, found))
        end += math.ceil(size / ALIGNED) * ALIGNED
        return found

    plan = _planned(batch, place)
    piece = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(max(end, 1)))
    for tensor, at in tensors:
        _view(piece, at).copy_(tensor)
    return unpack, (plan, piece)


def unpack(plan: Any, piece: Tensor) -> Any:
    """The batch; its tensors are views into ``piece``."""
    if isinstance(plan, _Place):
        return _view(piece, plan)
    if isinstance(plan, tuple):
        kind, values = plan
        return kind(**{name: unpack(value, piece) for name, value in values.items()})
    return plan


def _planned(value: Any, place: Any) -> Any:
    """Dataclasses as (type, fields), tensors as places, all else as it is."""
    if isinstance(value, Tensor):
        return place(value)
    if is_dataclass(value):
        return type(value), {f.name: _planned(getattr(value, f.name), place) for f in fields(value)}
    return value


def _view(piece: Tensor, at: _Place) -> Tensor:
    return piece[at.begin:at.begin + at.size].view(at.dtype).view(at.shape)


for _kind in (ChunkBatch, RolloutBatch):
    ForkingPickler.register(_kind, pack)
