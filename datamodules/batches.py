"""Streams of ready batches: an infinite one for training, a fixed padded list for validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

import datamodules.batch_transport  # noqa: F401 - batches travel from workers in one piece
from datamodules.order import batch_positions
from streamchar.types import ChunkBatch, RolloutBatch

Batch = ChunkBatch | RolloutBatch
TOGETHER = 256
"""Items of successive batches that are composed one after the other. Stacking a batch goes over megabytes and drives
all that composing uses out of the processor's cache; so this is paid once for several small batches."""


@dataclass
class Cursor:
    """How many samples of the global order all ranks together have consumed."""

    consumed: int = 0


@dataclass(frozen=True)
class Share:
    """One rank's part of every global batch: ``batch_size`` items per rank."""

    batch_size: int
    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class Source:
    """Where batches come from: items by position, and their collation.

    ``together``: items that may be composed before the first of them is needed, where no worker does it ahead; 1 where
    an item may be far away.
    """

    item: Callable[[int], Any]
    collate: Callable[[Sequence[Any]], Batch]
    together: int = 1

    def batch(self, positions: Sequence[int]) -> Batch:
        """The batch of these positions."""
        return self.collate([self.item(p) for p in positions])

    def batches(self, plans: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """The batches of these positions, all composed before the first is stacked."""
        composed = [[self.item(p) for p in positions] for positions in plans]
        yield from map(self.collate, composed)


class TrainBatches(IterableDataset):
    """Infinite batches from the cursor on; worker w of W yields batches w, w + W, ..., which a loader interleaves.

    The cursor is read whenever an iterator begins, so a resumed run and a new epoch go on where training stopped,
    whatever the loader had prefetched.
    """

    def __init__(self, source: Source, cursor: Cursor, share: Share) -> None:
        self.source, self.cursor, self.share = source, cursor, share

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        number, step = (info.id, info.num_workers) if info else (0, 1)
        s, consumed = self.share, self.cursor.consumed
        # A worker's prefetched batches cover a first look at a clip; several such looks in a row they might not.
        most, ahead = 1 if info else max(self.source.together // s.batch_size, 1), 1
        while True:
            numbers = range(number, number + ahead * step, step)
            yield from self.source.batches([batch_positions(consumed, n, s.batch_size, s.rank, s.world)
                                            for n in numbers])
            number += ahead * step
            ahead = min(2 * ahead, most)  # slowly, since the first look at a clip reads all of it


class FixedBatches(IterableDataset):
    """The same ``items`` positions every time, repeated from the first so that all ranks have as many full batches."""

    def __init__(self, source: Source, items: int, share: Share) -> None:
        self.source, self.items, self.share = source, max(items, 1), share

    def __len__(self) -> int:
        return -(-self.items // (self.share.batch_size * self.share.world))

    def __iter__(self) -> Iterator[Batch]:
        s = self.share
        for number in range(len(self)):
            positions = batch_positions(0, number, s.batch_size, s.rank, s.world)
            yield self.source.batch([p % self.items for p in positions])
