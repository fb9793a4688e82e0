"""One global, infinite order of samples: a pure function of (seed, position).

Ranks, workers and micro-batches only partition it: in a world of W ranks, rank r takes positions r, r + W, r + 2 W, ...
counted from the number of samples consumed so far. An item's random choices are drawn from :func:`rng_at`, a pure
function of the same two numbers, so one process, two processes and a resumed run see the same items.

Only the window of shards around a position is ever laid out in memory, so that the order of millions of clips costs a
process some megabytes, and going on in the middle costs as little as starting.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MASK = (1 << 64) - 1
_EPOCH_STREAM = 1 << 32
TOGETHER = 1 << 20
"""Visits that are shuffled together at most, where the number of shards of a window is not given."""
KEPT_WINDOWS = 3
"""Windows held at once: a batch may straddle two, and replacing a bad clip looks into another."""


def rng_at(seed: int, position: int, stream: int = 0) -> np.random.Generator:
    """The random numbers of one position (counter-based; ``stream`` separates independent uses)."""
    key = np.array([seed & _MASK, position & _MASK], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64)))


def batch_positions(consumed: int, batch: int, batch_size: int, rank: int, world: int) -> range:
    """Positions of a rank's ``batch``-th batch after ``consumed`` samples: every ``world``-th of the global batch."""
    first = consumed + batch * batch_size * world + rank
    return range(first, first + batch_size * world, world)


class _Epoch(NamedTuple):
    """Shards in this epoch's order, and the position at which each window of them begins."""

    shards: NDArray[np.int64]
    begins: list[int]


class GlobalOrder:
    """Which clip stands at which position.

    An epoch visits every clip ``visits`` times (its number of chunks, so that long clips are not starved). Clips are
    shuffled within windows of ``window`` shards, the shards themselves per epoch, which keeps reading local.

    Args:
        bounds: (shards + 1,) shard s holds the clip numbers bounds[s] .. bounds[s + 1] - 1.
        visits: (clips,) visits per epoch of each clip number (0 leaves a clip out).
        seed: of the order.
        window: shards shuffled together; 0: all, in large sets as many as hold about :data:`TOGETHER` visits.
    """

    def __init__(self, bounds: ArrayLike, visits: ArrayLike, seed: int, window: int = 0) -> None:
        self.seed = seed
        self._bounds = np.asarray(bounds, dtype=np.int64)
        self._visits = np.asarray(visits, dtype=np.uint16)
        sums = np.concatenate([[0], np.cumsum(self._visits, dtype=np.int64)])
        self._lengths = np.diff(sums[self._bounds])
        self.epoch_length = int(self._lengths.sum())
        shards = max(len(self._lengths), 1)
        enough = shards if self.epoch_length <= TOGETHER else max(shards * TOGETHER // self.epoch_length, 1)
        self.window = min(window or enough, shards)
        self._epochs: dict[int, _Epoch] = {}
        self._windows: dict[tuple[int, int], NDArray[np.uint32]] = {}

    @property
    def windowed(self) -> bool:
        """Whether the set is too large to be shuffled as a whole."""
        return self.window < len(self._lengths)

    def clip(self, position: int) -> int:
        """The clip at ``position`` (any non-negative integer)."""
        epoch, at = divmod(position, self.epoch_length)
        begins = self._epoch(epoch).begins
        window = bisect_right(begins, at) - 1
        return int(self._window(epoch, window)[at - begins[window]])

    def _epoch(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            _make_room(self._epochs, 2)
            shards = rng_at(self.seed, epoch, _EPOCH_STREAM).permutation(len(self._lengths))
            sums = np.add.reduceat(self._lengths[shards], np.arange(0, len(shards), self.window))
            self._epochs[epoch] = _Epoch(shards, [0, *np.cumsum(sums)[:-1].tolist()])
        return self._epochs[epoch]

    def _window(self, epoch: int, window: int) -> NDArray[np.uint32]:
        key = epoch, window
        if key not in self._windows:
            _make_room(self._windows, KEPT_WINDOWS)
            self._windows[key] = self._shuffled(epoch, window)
        return self._windows[key]

    def _shuffled(self, epoch: int, window: int) -> NDArray[np.uint32]:
        shards = self._epoch(epoch).shards[window * self.window:(window + 1) * self.window]
        numbers = np.concatenate([self._visited(int(s)) for s in shards])
        return self._generator(epoch, window).permutation(numbers)

    def _generator(self, epoch: int, window: int) -> np.random.Generator:
        """Each window has its own stream, so that none depends on those before it."""
        rng = rng_at(self.seed, epoch, _EPOCH_STREAM + window)
        if window == 0:
            rng.permutation(len(self._lengths))  # its stream has shuffled the shards first
        return rng

    def _visited(self, shard: int) -> NDArray[np.uint32]:
        first, last = self._bounds[shard:shard + 2]
        return np.repeat(np.arange(first, last, dtype=np.uint32), self._visits[first:last])


def _make_room(kept: dict, most: int) -> None:
    """Forget the oldest, so that one more makes ``most``."""
    while len(kept) >= most:
        kept.pop(next(iter(kept)))
