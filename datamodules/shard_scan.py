"""The table of a latent set from its shards' small tables; a shard that has none is read through once."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.clip_table import ClipPlace, ClipTable, shards_digest, table_path
from datamodules.latent_format import ClipRecord
from streamchar.errors import DataError

log = logging.getLogger(__name__)


def joined_table(folder: Path, shards: Sequence[Mapping[str, Any]]) -> ClipTable:
    """The table of a folder's shards from their own small ones; a shard without one is read."""
    return ClipTable.joined((_table_of(folder / s["file"], s) for s in shards), shards_digest(shards))


def _table_of(path: Path, shard: Mapping[str, Any]) -> ClipTable:
    try:
        table = ClipTable.load(table_path(path))
        if table.made_of == shards_digest([shard]):
            return table
    except DataError:
        pass  # latents of an earlier version have none
    return ClipTable.of_shard(scan_shard(path, int(shard["clips"])))


def scan_shard(path: Path, expected: int) -> list[ClipPlace]:
    """The clips of a latent tar by reading it; one that is cut gives what precedes the cut."""
    places: list[ClipPlace] = []
    size = path.stat().st_size
    found: tuple[ClipRecord, int, int] | None = None
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    source = tar.extractfile(member)
                    found = ClipRecord.from_json(source.read() if source else b""), member.offset_data, member.size
                elif found is not None and member.name == f"{found[0].key}.safetensors":
                    if member.offset_data + member.size > size:
                        raise tarfile.ReadError("unexpected end of data")
                    r, at, length = found
                    places.append(ClipPlace(at, length, member.offset_data, member.size, r.seconds, r.speaker, r.look,
                                            r.has_video))
    except (tarfile.TarError, ValueError, TypeError, EOFError) as error:
        log.warning("%s is cut or damaged after %d of %d clips: %s", path, len(places), expected, error)
    return places
