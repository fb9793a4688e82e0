"""Arrays of single items stacked to the float32 tensors of a batch.

Legend: B batch, T time, Ca channels of the sound.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Latents are read-only views into shards; torch warns that they could be written through its tensors, which none is.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

SMALL_ROW = 1 << 15
"""Values up to which rows are gathered before they are converted."""


class _Gathered(NamedTuple):
    """The same memory twice: as rows to write to, and as the tensor (B, ...) that is converted."""

    rows: list[NDArray]
    whole: Tensor


class Stacking:
    """Stacks groups of arrays; the memory in which small rows are gathered is used for every group and batch again.

    Conversion of many small rows costs a call each, and fresh memory for each group would push the batch itself out of
    the processor's cache. One thread at a time.
    """

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)
        self._known: dict[tuple, _Gathered] = {}

    def __reduce__(self) -> tuple:
        return Stacking, ()

    def stack(self, arrays: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> Tensor:
        """Stack to (B, *shape) float32; None becomes zeros. Large rows are copied once, which converts."""
        dtype = next((a.dtype for a in arrays if a is not None), None)
        if dtype is not None and math.prod(shape) <= SMALL_ROW:
            gathered = self._gathered(len(arrays), shape, dtype)
            for row, array in zip(gathered.rows, arrays, strict=True):
                row[...] = 0 if array is None else array
            return gathered.whole.to(torch.float32, copy=True)
        out = torch.empty(len(arrays), *shape)
        for slot, array in zip(out.unbind(), arrays, strict=True):
            if array is None:
                slot.zero_()
            else:
                slot.copy_(torch.from_numpy(array))
        return out

    def right_align(self, groups: Sequence[tuple[int, Sequence[np.ndarray]]], channels: int) -> tuple[Tensor, Tensor]:
        """Sounds (T, Ca), each group with its slots -> (B, all slots, Ca) and the mask (B, all slots) of what is real.

        The groups lie one after the other, in each the newest latent last.
        """
        count, slots = len(groups[0][1]), sum(size for size, _ in groups)
        gathered = self._gathered(count, (slots, channels), groups[0][1][0].dtype)
        mask = np.empty((count, slots), bool)
        begin = 0
        for size, arrays in groups:
            end = begin + size
            missing = [size - len(array) for array in arrays]
            mask[:, begin:end] = np.arange(size) >= np.array(missing, np.int64)[:, None]
            for row, array, empty in zip(gathered.rows, arrays, missing, strict=True):
                if empty:
                    row[begin:begin + empty] = 0
                row[begin + empty:end] = array
            begin = end
        return gathered.whole.to(torch.float32, copy=True), torch.from_numpy(mask)

    def _gathered(self, count: int, shape: tuple[int, ...], dtype: np.dtype) -> _Gathered:
        key = count, shape, dtype
        found = self._known.get(key)
        if found is None:
            size = count * math.prod(shape) * dtype.itemsize
            if size > len(self._memory):
                self._memory = np.empty(size, np.uint8)
                self._known.clear()  # they lie in the memory that was too small
            whole = self._memory[:size].view(dtype).reshape(count, *shape)
            found = self._known[key] = _Gathered(list(whole), torch.from_numpy(whole))
        return found


def flags(*groups: Sequence[bool]) -> tuple[Tensor, ...]:
    """(B,) bool of each group."""
    return torch.from_numpy(np.array(groups, bool)).unbind()


def numbers(*groups: Sequence[float]) -> tuple[Tensor, ...]:
    """(B,) float32 of each group."""
    return torch.from_numpy(np.array(groups, np.float32)).unbind()


def stacked(arrays: Sequence[np.ndarray]) -> Tensor:
    """Small arrays of one shape and type as (B, ...), unchanged."""
    return torch.from_numpy(np.array(arrays))


def positions(places: Sequence[int]) -> Tensor:
    """(B,) int64."""
    return torch.from_numpy(np.array(places, np.int64))
