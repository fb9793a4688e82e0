"""The random choices of items: the numbers of :func:`datamodules.order.rng_at`, without a new generator per item."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from datamodules.order import rng_at

_WORD = 1 << 32
_LOW = _WORD - 1


class Draws(np.random.Generator):
    """One generator that :meth:`at` sets to the start of a position's numbers; what it gave before is then over.

    An item draws some twenty numbers: a new generator would cost as much as half of its composition, numpy's
    ``integers`` more than a microsecond a number, and its ``random`` (in [0, 1), one at a time here) twice this one.
    """

    def __init__(self, seed: int) -> None:
        bits = rng_at(seed, 0).bit_generator
        super().__init__(bits)
        self._seed = seed
        self._start: dict[str, Any] = dict(bits.state)
        self._next32 = partial(bits.ctypes.next_uint32, bits.ctypes.state)
        self.random = partial(bits.ctypes.next_double, bits.ctypes.state)  # type: ignore[method-assign]

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
        if count == 1:
            return first  # as numpy does, without a draw
        if not 1 < count < _WORD:
            return int(super().integers(first, first + count))
        product = self._next32() * count
        if product & _LOW < count:
            least = _WORD % count
            while product & _LOW < least:
                product = self._next32() * count
        return first + (product >> 32)
