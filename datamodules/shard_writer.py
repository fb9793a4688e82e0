"""Writing one shard: a tar that appears under its name only when it is whole."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from datamodules.shards import ShardEntry, sha256_of
from streamchar.errors import InputError


class ShardWriter:
    """Context manager: samples go to a hidden temporary file, which is fsynced and renamed at the end.

    The bytes depend on the samples only (no times, users or modes), so equal samples give an equal sha256. After an
    exception, a full disk among them, nothing is left under the final name and an older complete shard stays.

    Attributes:
        entry: the shard's index row, set when the block ends without an error.
    """

    def __init__(self, path: Path, recipe: str = "") -> None:
        self.path = path
        self.recipe = recipe
        self.entry: ShardEntry | None = None
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._samples = 0
        self._seconds = 0.0

    def __enter__(self) -> ShardWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._temporary, "wb")  # noqa: SIM115 - closed in __exit__
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)
        return self

    def write(self, key: str, files: Mapping[str, bytes], seconds: float = 0.0) -> None:
        """Add one sample.

        Args:
            key: the sample's name, without a dot.
            files: extension (``mp4``, ``wav``, ``json``, ...) to bytes.
            seconds: its duration, for the index.

        Raises:
            InputError: if the key holds a dot or a slash (a reader would cut it there).
        """
        if not key or "." in key or "/" in key:
            raise InputError(f"sample key {key!r}: expected a name without '.' and '/', since readers cut keys there")
        for extension, body in files.items():
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size = len(body)
            self._tar.addfile(info, io.BytesIO(body))
        self._samples += 1
        self._seconds += seconds

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                size = self._file.tell()
                self._file.close()
                digest = sha256_of(self._temporary)
                os.replace(self._temporary, self.path)
                self.entry = ShardEntry(self.path.name, self._samples, digest, round(self._seconds, 3), size,
                                        self.recipe)
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
