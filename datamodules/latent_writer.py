"""Writing latent shards: atomic tars, one small record each, and the index made from the records.

A shard appears under its name only when complete (written to ``NAME.part``, fsynced, renamed); its table
``NAME.clips`` and its record ``NAME.json`` appear after it. An interrupted encoding therefore goes on with the first
shard that has no record, and several processes may write different shards of one folder at the same time.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from datamodules.atomic_file import part_of, write_atomic
from datamodules.clip_table import TABLE_NAME, ClipPlace, ClipTable, shards_digest, table_path
from datamodules.latent_format import INDEX_NAME, ClipRecord, LatentIndex
from datamodules.shard_scan import joined_table
from datamodules.shards import sha256_of


class LatentShardWriter:
    """Writes one latent shard; use as a context manager. An exception inside leaves no shard behind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clips = 0
        self.seconds = 0.0
        self.places: list[ClipPlace] = []
        self._part = part_of(path)

    def __enter__(self) -> LatentShardWriter:
        self._file = open(self._part, "wb")  # noqa: SIM115 - closed in __exit__
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        return self

    def add(self, record: ClipRecord, tensors: Mapping[str, np.ndarray]) -> None:
        """Append a clip; float16 or float32 tensors named ``video.p`` and ``audio.p``."""
        arrays = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
        spans: list[int] = []
        for suffix, data in (("json", record.to_json()), ("safetensors", save(arrays))):
            info = tarfile.TarInfo(f"{record.key}.{suffix}")
            info.size = len(data)
            spans += [self._tar.offset + tarfile.BLOCKSIZE, len(data)]  # a USTAR header is one block
            self._tar.addfile(info, io.BytesIO(data))
        self.places.append(ClipPlace(spans[0], spans[1], spans[2], spans[3], record.seconds, record.speaker,
                                     record.look, record.has_video))
        self.clips += 1
        self.seconds += record.seconds

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        try:
            if kind is None:
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._part.replace(self.path)
        finally:
            with suppress(OSError):  # closing writes what is buffered, which a full disk refuses again
                self._file.close()
            self._part.unlink(missing_ok=True)


def shard_record(path: Path, writer: LatentShardWriter, recipe: str,
                 quarantined: list[dict[str, str]]) -> dict[str, Any]:
    """Write and return the record of a finished shard; ``recipe`` names all that the latents depend on."""
    record = {"file": path.name, "clips": writer.clips, "seconds": round(writer.seconds, 3),
              "bytes": path.stat().st_size, "sha256": sha256_of(path), "recipe": recipe, "quarantined": quarantined}
    table = ClipTable.of_shard(writer.places)
    table.made_of = shards_digest([record])
    table.save(table_path(path))
    write_atomic(path.with_suffix(".json"), json.dumps(record).encode())
    return record


def finished_record(path: Path, recipe: str) -> dict[str, Any] | None:
    """The record of a shard that is complete and was made by the same recipe, else None."""
    try:
        record = json.loads(path.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return None
    complete = path.exists() and path.stat().st_size == record.get("bytes")
    return record if complete and record.get("recipe") == recipe else None


def write_index(folder: Path, index: LatentIndex, records: Iterable[dict[str, Any]]) -> ClipTable:
    """Write ``shards.json`` and the clips' table from the shards' records; returns the table."""
    index.shards, index.quarantined = [], []
    for record in records:
        index.quarantined += record["quarantined"]
        index.shards.append({k: record[k] for k in ("file", "clips", "seconds", "bytes", "sha256", "set", "recorded")
                             if k in record})
    table = joined_table(folder, index.shards)
    table.save(folder / TABLE_NAME)
    write_atomic(folder / INDEX_NAME, index.to_json())
    return table
