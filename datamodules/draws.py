"""The random choices of items: the numbers of :func:`datamodules.order.rng_at`, without a new generator per item."""

from __future__ import annotations

from typing import Any

import numpy as np

from datamodules.order import rng_at

_WORD = 1 << 32


class Draws(np.random.Generator):
    """One generator that :meth:`at` sets to the start of a position's numbers; what it gave before is then over.

    An item draws some twenty numbers: a new generator would cost as much as half of its composition, and numpy's
    ``integers`` more than a microsecond a number.
    """

    def __init__(self, seed: int) -> None:
        bits = rng_at(seed, 0).bit_generator
        super().__init__(bits)
        self._seed = seed
        self._start: dict[str, Any] = dict(bits.state)
        self._next32, self._state = bits.ctypes.next_uint32, bits.ctypes.state_address

    def __reduce__(self) -> tuple:
        return Draws, (self._seed,)

    def at(self, position: int) -> Draws:
        """Itself, at the first number of ``position``."""
        self._start["state"]["key"][1] = position
        self.bit_generator.state = self._start
        return self

    def integers(self, low: int, high: int | None = None) -> int:  # type: ignore[override]
        """One number in [low, high), or [0, low): bit for bit what numpy draws (Lemire's method on 32 bits)."""
        first, count = (0, low) if high is None else (low, high - low)
        if not 1 < count < _WORD:
            return int(super().integers(first, first + count))
        product = self._next32(self._state) * count
        if product % _WORD < count:
            least = _WORD % count
            while product % _WORD < least:
                product = self._next32(self._state) * count
        return first + (product >> 32)
