"""Rows on disk instead of in memory: a corpus has millions of recordings."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class Spool(Generic[T]):
    """Rows in the order in which they were appended, read as often as wanted.

    The file has no name: no other process reads it, and it goes with this one, however that ends.

    Args:
        folder: on whose disk it lies; None: that of temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the spool
        self._end = 0

    def append(self, row: T) -> None:
        """One more row.

        Raises:
            OSError: a full disk.
        """
        self._file.seek(self._end)
        pickle.dump(row, self._file, pickle.HIGHEST_PROTOCOL)
        self._end = self._file.tell()

    def __iter__(self) -> Iterator[T]:
        at = 0
        while at < self._end:
            self._file.seek(at)
            row = pickle.load(self._file)
            at = self._file.tell()
            yield row
