"""Names that stand for a recording: made of its path, each one's own. Millions are compared in eight bytes each."""

from __future__ import annotations

import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

LONGEST_KEY = 80
"""Characters; names in a tar have at most 100."""


class Hashes:
    """Names (of any number, each as often as it was added) as hashes of 64 bits: two differ but for one chance in
    millions, in which a key is numbered without need."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._values = array("Q", map(_hash, names))
        self._ordered = False

    def add(self, name: str) -> None:
        """One more."""
        self._values.append(_hash(name))
        self._ordered = False

    def __contains__(self, name: str) -> bool:
        self._order()
        value = _hash(name)
        at = bisect_left(self._values, value)
        return at < len(self._values) and self._values[at] == value

    def distinct(self) -> int:
        """How many different names there are."""
        self._order()
        values = np.frombuffer(self._values, np.uint64)
        return int(np.count_nonzero(values[1:] != values[:-1])) + bool(len(values))

    def repeated(self) -> Hashes:
        """The names that were added more than once."""
        self._order()
        values = np.frombuffer(self._values, np.uint64)
        found = Hashes()
        found._values.frombytes(values[1:][values[1:] == values[:-1]].tobytes())
        return found

    def _order(self) -> None:
        if not self._ordered:
            np.frombuffer(self._values, np.uint64).sort()
            self._ordered = True


def slug(name: str) -> str:
    """A name as part of a key: letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^\w-]+", "-", name, flags=re.ASCII).strip("-") or "x"


def distinct_key(key: str, path: str, repeated: Hashes) -> str:
    """The key of ``path``; one that is long, or that others would share (``repeated``), ends in a number of its own."""
    if len(key) <= LONGEST_KEY and key not in repeated:
        return key
    number = f"-{zlib.crc32(path.encode(errors='surrogateescape')):08x}"
    return key[:LONGEST_KEY - len(number)] + number


def _hash(name: str) -> int:
    body = blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(body, "little")
