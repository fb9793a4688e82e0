"""Remote shards on the local disk: a bounded folder that all processes of a machine share.

A shard is downloaded once, by whoever needs it first, while the others wait on its lock (the kernel frees it when its
holder dies). It appears under its name only when complete. The least recently used ones make room for new ones; a file
that a process still reads stays readable after its removal.

``STREAMCHAR_CACHE`` names the folder (default: one per user in the temporary folder; choose a fast local disk) and
``STREAMCHAR_CACHE_GB`` its bound (default 50).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from datamodules.remote import Expected, Retries, fetch
from streamchar.errors import InputError

log = logging.getLogger(__name__)

DEFAULT_GB = 50.0
FULL = (errno.ENOSPC, errno.EDQUOT)


class ShardCache:
    """A folder of downloaded shards.

    Args:
        folder: default as the environment says.
        limit: bytes; the shard that is asked for is kept whatever its size.
        retries: of the downloads.
    """

    def __init__(self, folder: Path | None = None, limit: int | None = None, retries: Retries = Retries()) -> None:
        self.folder = folder or Path(os.environ.get("STREAMCHAR_CACHE") or _default_folder())
        self.limit = _limit_given() if limit is None else limit
        self.retries = retries

    def open(self, url: str, expected: Expected = Expected()) -> BinaryIO:
        """The object at ``url`` as a local file, downloaded if need be.

        Raises:
            GoneError, StorageError: as :func:`datamodules.remote.fetch` says.
            InputError: if the folder cannot be written or its disk is full.
        """
        path = self.folder / _name(url)
        file = _opened(path)
        if file is not None:
            return file
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(path.with_name(path.name + ".lock")):
                file = _opened(path)  # somebody else was quicker
                if file is None:
                    self._download(url, path, expected)
                    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
        except OSError as error:
            raise InputError(f"cannot keep {url} in the cache {self.folder}: {error.strerror or error}; free some "
                             "space there, or set STREAMCHAR_CACHE to a folder on another disk (and "
                             f"STREAMCHAR_CACHE_GB, now {self.limit / 1e9:g}, to less than it holds)") from error
        return file

    def _download(self, url: str, path: Path, expected: Expected) -> None:
        part = path.with_name(path.name + ".part")
        try:
            self._make_room(path, expected.bytes or 0, self.limit)
            try:
                fetch(url, part, expected, self.retries)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                log.warning("the disk of the cache %s is full: removing all other shards from it", self.folder)
                part.unlink(missing_ok=True)
                self._make_room(path, 0, 0)
                fetch(url, part, expected, self.retries)
            part.replace(path)
            self._make_room(path, path.stat().st_size, self.limit)
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, kept: Path, size: int, limit: int) -> None:
        """Remove the shards that were used longest ago until ``size`` bytes more stay within ``limit``."""
        others = []
        for path in self.folder.iterdir():
            if path != kept and path.suffix not in (".lock", ".part"):
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    others.append((stat.st_mtime_ns, stat.st_size, path))
        total = size + sum(bytes_ for _, bytes_, _ in others)
        for _, bytes_, path in sorted(others):
            if total <= limit:
                return
            path.unlink(missing_ok=True)
            total -= bytes_


def _opened(path: Path) -> BinaryIO | None:
    """The file, marked as used just now; None where it is not there."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    except FileNotFoundError:
        return None
    with suppress(OSError):
        os.utime(path)
    return file


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _name(url: str) -> str:
    """A file name of an address: readable, and unique by its hash."""
    readable = re.sub(r"[^\w.-]+", "_", url.split("?")[0].rstrip("/").split("/")[-1])[-60:]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{readable}"


def _default_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"streamchar-cache-{os.getuid()}"


def _limit_given() -> int:
    given = os.environ.get("STREAMCHAR_CACHE_GB", "")
    try:
        gigabytes = float(given or DEFAULT_GB)
        if gigabytes <= 0:
            raise ValueError
    except ValueError:
        raise InputError(f"STREAMCHAR_CACHE_GB={given!r} must be a positive number of gigabytes") from None
    return int(gigabytes * 1e9)
