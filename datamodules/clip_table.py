"""Where every clip of a latent set lies, in columns: what order, partners and reading need without opening a shard.

The table of a set is one safetensors file beside its tars, memory-mapped: loader processes of a machine share its
pages, and a clip costs 45 bytes whatever its words and JSON weigh. Every shard is written with its own small table, so
the whole one is put together without reading the tars again.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from datamodules.atomic_file import write_atomic
from datamodules.latent_format import tensor_places
from streamchar.errors import DataError

TABLE_NAME = "clips.safetensors"
COLUMNS: dict[str, type] = {"at": np.uint64, "size": np.uint32, "back": np.uint32, "record": np.uint32,
                            "seconds": np.float64, "speaker": np.uint32, "look": np.uint32, "video": np.uint8}
GROUPS = ("speaker", "look")


class ClipPlace(NamedTuple):
    """A clip in its shard: bytes of the record (JSON) and of the tensors (safetensors), and what order and partners
    need of the record."""

    record_at: int
    record_size: int
    at: int
    size: int
    seconds: float
    speaker: str
    look: str
    video: bool


@dataclass
class ClipTable:
    """Columns by clip number. Shard s holds the clips ``bounds[s]`` .. ``bounds[s + 1] - 1``.

    ``at``, ``size``: the tensors in the tar; ``back``: bytes from ``at`` back to the record, ``record``: its size.
    ``speaker``, ``look``: numbers; ``names`` says whose. ``of_speaker``, ``of_look``: clip numbers by group, group g
    at ``speaker_bounds[g]`` .. ``speaker_bounds[g + 1]``.
    """

    columns: dict[str, NDArray]
    bounds: NDArray[np.int64]
    names: dict[str, list[str]]
    made_of: str = ""

    def __post_init__(self) -> None:
        for group in GROUPS:
            if f"of_{group}" not in self.columns:
                ids = self.columns[group]
                self.columns[f"of_{group}"] = np.argsort(ids, kind="stable").astype(np.uint32)
                counts = np.bincount(ids, minlength=len(self.names[group]))
                self.columns[f"{group}_bounds"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.columns["at"])

    def shard_of(self, number: int) -> int:
        """The shard that holds a clip."""
        return int(np.searchsorted(self.bounds, number, side="right")) - 1

    def members(self, group: str, number: int, in_shard: bool = False) -> NDArray[np.uint32]:
        """Clips of the same ``group`` (``speaker`` or ``look``), the clip itself among them, in ascending order.

        ``in_shard``: only those that lie in the clip's own shard.
        """
        which = int(self.columns[group][number])
        begin, end = self.columns[f"{group}_bounds"][which:which + 2]
        found = self.columns[f"of_{group}"][begin:end]
        if in_shard:
            shard = self.shard_of(number)
            first, last = np.searchsorted(found, self.bounds[shard:shard + 2].astype(np.uint32))
            found = found[first:last]
        return found

    def share_with_partner(self, group: str) -> float:
        """Share of clips that have another of their group in the same shard."""
        if not len(self):
            return 0.0
        shards = np.repeat(np.arange(len(self.bounds) - 1, dtype=np.int64), np.diff(self.bounds))
        pairs = shards * len(self.names[group]) + self.columns[group]
        _, counts = np.unique(pairs, return_counts=True)
        return float(counts[counts > 1].sum() / len(self))

    def keep(self, kept: NDArray[np.bool_]) -> ClipTable:
        """The table without the clips where ``kept`` (clips,) is False; shards stay, if need be empty."""
        counts = np.add.reduceat(np.append(kept, False), self.bounds[:-1]) * (np.diff(self.bounds) > 0)
        columns = {name: self.columns[name][kept] for name in COLUMNS}
        return ClipTable(columns, np.concatenate([[0], np.cumsum(counts)]), self.names, self.made_of)

    def save(self, path: Path) -> None:
        """Write so that ``path`` is either absent, old or complete."""
        metadata = {"made_of": self.made_of, **{g: json.dumps(self.names[g]) for g in GROUPS}}
        write_atomic(path, save({**self.columns, "bounds": self.bounds}, metadata))

    @classmethod
    def load(cls, path: Path) -> ClipTable:
        """Map a table.

        Raises:
            DataError: if it is missing or damaged.
        """
        try:
            with open(path, "rb") as file:
                blob = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
            places = tensor_places(blob)
            length = struct.unpack("<Q", blob[:8].tobytes())[0]
            metadata = json.loads(blob[8:8 + length].tobytes())["__metadata__"]
            columns = {name: np.frombuffer(blob, dtype, math.prod(shape), at)
                       for name, (dtype, shape, at) in places.items()}
            bounds = columns.pop("bounds")
            return cls(columns, bounds, {g: json.loads(metadata[g]) for g in GROUPS}, metadata["made_of"])
        except (OSError, ValueError, KeyError, IndexError, struct.error) as error:
            raise DataError(f"clip table {path} cannot be read ({error}); run stage=encode again") from error

    @classmethod
    def of_shard(cls, places: Sequence[ClipPlace]) -> ClipTable:
        """The table of one shard from its clips in tar order."""
        names: dict[str, dict[str, int]] = {g: {} for g in GROUPS}
        rows = [(p.at, p.size, p.at - p.record_at, p.record_size, p.seconds,
                 *(names[g].setdefault(getattr(p, g), len(names[g])) for g in GROUPS), p.video) for p in places]
        columns: dict[str, NDArray] = {name: np.array([row[i] for row in rows], kind)
                                       for i, (name, kind) in enumerate(COLUMNS.items())}
        return cls(columns, np.array([0, len(rows)], np.int64), {g: list(names[g]) for g in GROUPS})

    @classmethod
    def joined(cls, tables: Iterable[ClipTable], made_of: str = "") -> ClipTable:
        """The table of several shards, in this order; a name that occurs in several is one speaker or look."""
        names: dict[str, dict[str, int]] = {g: {} for g in GROUPS}
        parts: dict[str, list[NDArray]] = {name: [] for name in COLUMNS}
        counts = [0]
        for table in tables:
            counts += [int(n) for n in np.diff(table.bounds)]
            for name in COLUMNS:
                column = table.columns[name]
                if name in GROUPS:
                    numbers = [names[name].setdefault(n, len(names[name])) for n in table.names[name]]
                    column = np.array(numbers, COLUMNS[name])[column] if len(column) else column
                parts[name].append(column)
        columns: dict[str, NDArray] = {name: np.concatenate([np.zeros(0, kind), *parts[name]]).astype(kind, copy=False)
                                       for name, kind in COLUMNS.items()}
        return cls(columns, np.cumsum(counts), {g: list(names[g]) for g in GROUPS}, made_of)


def shards_digest(shards: Sequence[Mapping[str, Any]]) -> str:
    """What a table belongs to: the shards' names, sizes and contents."""
    rows = [[s["file"], s["bytes"], s["sha256"], s["clips"]] for s in shards]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def table_path(shard: str | os.PathLike) -> Path:
    """Where the small table of one shard lies."""
    return Path(shard).with_suffix(".clips")
