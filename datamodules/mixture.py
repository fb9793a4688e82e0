"""Several sets in one order, each with its share of the positions: still a pure function of (seed, position)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from datamodules.config import AGAIN, DataConfig
from datamodules.order import GlobalOrder, rng_at
from streamchar.errors import DataError

BLOCK = 1 << 10
"""Positions in which every set has exactly its share."""
_MIX_STREAM = 1 << 33


class MixedOrder:
    """Which clip stands at which position, where sets have shares.

    In every block of :data:`BLOCK` positions a set has as many as its weight says, at places shuffled anew per block;
    inside a set the clips follow its own :class:`GlobalOrder`, epoch after epoch at its own pace.

    Args:
        orders: of the sets.
        weights: of the sets, in any unit.
        seed: of the places.

    Raises:
        DataError: if no set with a weight has an item.
    """

    def __init__(self, orders: Sequence[GlobalOrder], weights: Sequence[float], seed: int) -> None:
        kept = [(o, w) for o, w in zip(orders, weights, strict=True) if o.epoch_length and w > 0]
        if not kept:
            raise DataError("data.mix: no set with a weight has an item for this stage; give one with pictures")
        self.orders, self.seed = [o for o, _ in kept], seed
        self.counts = shares([w for _, w in kept], BLOCK)
        self.epoch_length = sum(o.epoch_length for o in self.orders)
        self.window = max(o.window for o in self.orders)
        self._block = -1
        self._places = np.zeros((0, 2), np.int64)

    @property
    def windowed(self) -> bool:
        """Whether a set is too large to be shuffled as a whole."""
        return any(o.windowed for o in self.orders)

    def clip(self, position: int) -> int:
        """The clip at ``position`` (any non-negative integer)."""
        block, at = divmod(position, BLOCK)
        if block != self._block:
            self._block, self._places = block, self._shuffled(block)
        which, rank = self._places[at]
        return self.orders[which].clip(block * self.counts[which] + int(rank))

    def _shuffled(self, block: int) -> np.ndarray:
        """(BLOCK, 2): the set of each place, and how many of the set stand before it in the block."""
        sets = rng_at(self.seed, block, _MIX_STREAM).permutation(np.repeat(np.arange(len(self.counts)), self.counts))
        ranks = np.zeros(BLOCK, np.int64)
        for which, count in enumerate(self.counts):
            ranks[sets == which] = np.arange(count)
        return np.stack([sets, ranks], 1)


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers in proportion to ``weights`` that sum to ``total``; none is 0."""
    exact = np.asarray(weights, float) / sum(weights) * total
    counts = np.maximum(np.floor(exact), 1).astype(int)
    for which in np.argsort(counts - exact, kind="stable")[:max(total - counts.sum(), 0)]:
        counts[which] += 1
    counts[int(np.argmax(counts))] += total - counts.sum()
    return [int(c) for c in counts]


def check_sets(sets: Mapping[str, tuple[int, int]], cfg: DataConfig) -> None:
    """Refuse train latents that do not hold the sets of ``data.mix``, or no clips of ``data.respoken`` (which latents
    made elsewhere may do without, unless the teacher shall have them).

    Raises:
        DataError: naming both.
    """
    if cfg.mix is not None and set(sets) != set(cfg.mix):
        raise DataError(f"data.mix names {', '.join(cfg.mix)}, the latents hold {', '.join(map(repr, sets))}; "
                        "run stage=encode with this data.mix (weight: 0 leaves a set out)")
    if cfg.mix is None and cfg.respoken.times and AGAIN not in sets and not cfg.latents:
        raise DataError(f"data.respoken.times={cfg.respoken.times}, but the latents hold no words said again: run "
                        "stage=encode with it, or give data.respoken.times=0")
    if cfg.mix is None and cfg.respoken.joint_share and AGAIN not in sets:
        raise DataError(f"data.respoken.joint_share={cfg.respoken.joint_share}, but the latents of {cfg.latents} hold "
                        "no words said again: give latents that do, or data.respoken.joint_share=0")


def mixed_order(sets: Mapping[str, tuple[int, int]], weights: Mapping[str, float], bounds: np.ndarray,
                visits: np.ndarray, seed: int, window: int) -> MixedOrder | GlobalOrder:
    """The order of the sets' shards (``sets``: first and end shard by name); latents without sets, such as validation
    clips that were given apart, have a plain one."""
    if set(sets) == {""}:
        return GlobalOrder(bounds, visits, seed, window)
    orders = [GlobalOrder(bounds[first:end + 1], visits, seed + number, window)
              for number, (first, end) in enumerate(sets.values())]
    return MixedOrder(orders, [weights.get(name, 0.0) for name in sets], seed)
