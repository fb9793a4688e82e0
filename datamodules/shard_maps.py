"""Memory maps of a set's latent tars, local or through the cache; only the last ones used are kept open."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from datamodules.remote import Expected, GoneError, is_remote, join
from datamodules.shard_cache import ShardCache
from streamchar.errors import DataError

OPEN_MAPS = 64


class ShardMaps:
    """Bytes of shards by number.

    Args:
        base: folder or address of the tars.
        shards: rows of ``shards.json``.
        cache: of remote tars.
    """

    def __init__(self, base: str, shards: Sequence[Mapping[str, Any]], cache: ShardCache | None = None) -> None:
        self.base, self._shards = base, shards
        self.remote = is_remote(base)
        self.cache = cache or (ShardCache() if self.remote else None)
        self._maps: dict[int, NDArray[np.uint8]] = {}  # the last one used is the last to go
        self._last = -1
        self._gone: dict[int, GoneError] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}, "_last": -1}  # maps are opened again in the process that reads

    @property
    def all_stay(self) -> bool:
        """Whether no map is ever let go, so that views into them may be kept."""
        return len(self._shards) <= OPEN_MAPS

    def name(self, shard: int) -> str:
        """Path or address of a shard."""
        return join(self.base, self._shards[shard]["file"])

    def view(self, shard: int, begin: int, size: int) -> NDArray[np.uint8]:
        """(size,) bytes of a shard, of its :meth:`whole`.

        Raises:
            GoneError: the shard is not there or shorter than its table says.
            StorageError: the storage does not answer.
        """
        blob = self.whole(shard)[begin:begin + size]
        if len(blob) < size:
            raise GoneError(f"{self.name(shard)} is shorter than its table says; run stage=encode again")
        return blob

    def whole(self, shard: int) -> NDArray[np.uint8]:
        """All bytes of a shard; the array stays valid when the map is let go.

        Raises:
            GoneError: the shard is not there.
            StorageError: the storage does not answer.
        """
        if shard != self._last:
            self._maps[shard] = self._maps.pop(shard) if shard in self._maps else self._mapped(shard)
            self._last = shard
        return self._maps[shard]

    def _mapped(self, shard: int) -> NDArray[np.uint8]:
        if shard in self._gone:
            raise self._gone[shard]  # every one of its clips would ask again
        while len(self._maps) >= OPEN_MAPS:
            self._maps.pop(next(iter(self._maps)))
        with self._opened(shard) as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def _opened(self, shard: int) -> BinaryIO:
        try:
            return self._open(shard)
        except GoneError as error:
            self._gone[shard] = error
            raise

    def _open(self, shard: int) -> BinaryIO:
        row = self._shards[shard]
        if self.cache is not None:
            return self.cache.open(self.name(shard), Expected(row["bytes"], row["sha256"]))
        try:
            return open(self.name(shard), "rb")
        except OSError as error:
            raise GoneError(f"latent shard {self.name(shard)} is listed but cannot be read ({error.strerror}); "
                            "run stage=encode again") from error

    def readable_bytes(self) -> list[int | None]:
        """Size of each local tar on the disk; None for remote ones, which are checked when they arrive.

        Raises:
            DataError: if a local tar is missing.
        """
        if self.remote:
            return [None] * len(self._shards)
        try:
            return [Path(self.name(s)).stat().st_size for s in range(len(self._shards))]
        except OSError as error:
            raise DataError(f"latent shard {error.filename} is listed but missing; run stage=encode again") from error
