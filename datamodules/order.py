"""One global, infinite order of samples: a pure function of (seed, position).

Ranks, workers and micro-batches only partition it: in a world of W ranks, rank r takes positions r, r + W, r + 2 W, ...
counted from the number of samples consumed so far. An item's random choices are drawn from :func:`rng_at`, a pure
function of the same two numbers, so one process, two processes and a resumed run see the same items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MASK = (1 << 64) - 1
_EPOCH_STREAM = 1 << 32


def rng_at(seed: int, position: int, stream: int = 0) -> np.random.Generator:
    """The random numbers of one position (counter-based; ``stream`` separates independent uses)."""
    key = np.array([seed & _MASK, position & _MASK], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, stream], dtype=np.uint64)))


def batch_positions(consumed: int, batch: int, batch_size: int, rank: int, world: int) -> range:
    """Positions of a rank's ``batch``-th batch after ``consumed`` samples: every ``world``-th of the global batch."""
    first = consumed + batch * batch_size * world + rank
    return range(first, first + batch_size * world, world)


class GlobalOrder:
    """Which clip stands at which position.

    An epoch visits every clip ``visits`` times (its number of chunks, so that long clips are not starved). Clips are
    shuffled within windows of ``window`` shards, the shards themselves per epoch, which keeps reading local.

    Args:
        shards: clip numbers of each shard.
        visits: visits per epoch of each clip number (0 leaves a clip out).
        seed: of the order.
        window: shards shuffled together; 0 = all.
    """

    def __init__(self, shards: Sequence[Sequence[int]], visits: Sequence[int], seed: int, window: int = 0) -> None:
        self.seed = seed
        self.window = window or max(len(shards), 1)
        self._shards = [np.repeat(np.asarray(s, dtype=np.int64), [visits[c] for c in s]) for s in shards]
        self.epoch_length = sum(len(s) for s in self._shards)
        self._epochs: dict[int, np.ndarray] = {}

    def clip(self, position: int) -> int:
        """The clip at ``position`` (any non-negative integer)."""
        epoch, at = divmod(position, self.epoch_length)
        return int(self._epoch(epoch)[at])

    def _epoch(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            while len(self._epochs) > 1:  # a batch may straddle two epochs, never three
                self._epochs.pop(next(iter(self._epochs)))
            self._epochs[epoch] = self._shuffled(epoch)
        return self._epochs[epoch]

    def _shuffled(self, epoch: int) -> np.ndarray:
        rng = rng_at(self.seed, epoch, _EPOCH_STREAM)
        shards = rng.permutation(len(self._shards))
        windows = [shards[i:i + self.window] for i in range(0, len(shards), self.window)]
        return np.concatenate([rng.permutation(np.concatenate([self._shards[s] for s in w])) for w in windows])
