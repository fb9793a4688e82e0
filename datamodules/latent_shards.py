"""Reading latent shards: every clip's latents as views into memory-mapped tars, bad clips quarantined.

Opening a set maps its table of clips and reads no shard. Nothing is copied until a batch is stacked; the operating
system's page cache is shared by all workers and ranks, so a small set lives in memory and a large one streams.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.bad_clips import BadClips
from datamodules.clip_table import TABLE_NAME, ClipTable, shards_digest
from datamodules.latent_clip import LatentClip
from datamodules.latent_format import INDEX_NAME, LatentIndex
from datamodules.remote import StorageError
from datamodules.shard_cache import ShardCache
from datamodules.shard_maps import ShardMaps
from datamodules.shard_scan import joined_table
from streamchar.clock import ChunkClock
from streamchar.errors import DataError

log = logging.getLogger(__name__)

KEPT_CLIPS = 2048
"""Clips whose records stay parsed; the others are parsed again when they are met."""
LISTED = 10
GRACE = 10
"""Bad clips up to which their share of those looked at says little."""
CHECKED_BYTES = 32 << 30
"""Sets up to this size are looked at value by value. In larger ones a process meets a clip about once, and would read
all its phases for the few chunks of an item; their values were checked when they were written."""


class Clips(Sequence[LatentClip]):
    """The clips of a set by number, made when they are asked for."""

    def __init__(self, table: ClipTable, maps: ShardMaps) -> None:
        self._table, self._maps = table, maps
        self._kept: dict[int, LatentClip] = {}

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[LatentClip]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        return self._kept.get(number) or self._keep(int(number))

    def _keep(self, number: int) -> LatentClip:
        found = self._made(number)
        while len(self._kept) >= KEPT_CLIPS:
            self._kept.pop(next(iter(self._kept)))
        self._kept[number] = found
        return found

    def _made(self, number: int) -> LatentClip:
        if not 0 <= number < len(self):
            raise IndexError(f"clip {number} of {len(self)}")
        at, size, back, record, video = (int(self._table.columns[name][number])
                                         for name in ("at", "size", "back", "record", "video"))
        shard = self._table.shard_of(number)
        whole, read = partial(self._maps.whole, shard), partial(self._maps.view, shard)
        return LatentClip(number, whole, read, (at - back, record), (at, size), bool(video), self._maps.all_stay)


class LatentStore:
    """All clips of a folder of latent shards.

    Args:
        folder: with ``shards.json``; the tars lie beside it or where it says.
        clock: of the run; must agree with the latents' rates.
        fingerprints: ``{"video": ..., "audio": ...}`` of the run's codecs; a missing or None entry is not checked.
        max_bad_share: share of clips that may be quarantined, of the set and of those that were looked at.
        cache: of remote shards; None: as the environment says.
        quarantine: jsonl file of the bad clips, shared by all processes of the run; None: each keeps its own list.

    Raises:
        DataError: if the folder or a shard is missing, empty, damaged beyond ``max_bad_share``, or made by other
            codecs or for another clock.
    """

    def __init__(self, folder: Path, clock: ChunkClock, fingerprints: dict[str, str | None] | None = None,
                 max_bad_share: float = 0.2, cache: ShardCache | None = None,
                 quarantine: Path | None = None) -> None:
        self.folder = Path(folder)
        self.max_bad_share = max_bad_share
        self.index = self._read_index()
        self._check_geometry(clock)
        self._check_fingerprints(fingerprints or {})
        self.maps = ShardMaps(self.index.base or str(self.folder), self.index.shards, cache)
        self.bad = BadClips(quarantine)
        self._open_table()

    def _open_table(self) -> None:
        self.table = self._without_lost(self._read_table())
        if not len(self.table):
            raise DataError(f"{self.folder} holds no usable clip; run stage=encode again (data.shards=...)")
        self.clips = Clips(self.table, self.maps)
        self._good = bytearray(len(self.table))  # 1: looked at and good
        self._bad: set[int] = set()
        self._looked = 0
        self._check_values = sum(int(s["bytes"]) for s in self.index.shards) <= CHECKED_BYTES

    def __getstate__(self) -> dict[str, Any]:
        """The table is mapped again in the process that reads; it would travel as a copy."""
        return {k: v for k, v in self.__dict__.items() if k not in ("table", "clips", "_good", "_bad")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_table()

    @property
    def quarantined(self) -> dict[str, str]:
        """Key and reason of the clips that cannot be used, as far as they were met."""
        return self.bad.reasons if len(self.bad) else {}

    @cached_property
    def sets(self) -> dict[str, tuple[int, int]]:
        """First and end shard of each set of a mixture, by name; one set without a name where there is no mixture."""
        found: dict[str, tuple[int, int]] = {}
        for shard, row in enumerate(self.index.shards):
            name = row.get("set", "")
            found[name] = found.get(name, (shard, shard))[0], shard + 1
        return found

    def set_of(self, clip: LatentClip) -> str:
        """The set of a mixture that a clip belongs to; empty where there is no mixture."""
        return str(self.index.shards[self.table.shard_of(clip.number)].get("set", ""))

    def tell_window(self, shards: int) -> None:
        """Warn where a window of the order does not fit the cache: its shards would be downloaded again and again."""
        cache = self.maps.cache
        size = shards * sum(int(s["bytes"]) for s in self.index.shards) / len(self.index.shards)
        if cache is not None and size > cache.limit:
            log.warning("%d shards are shuffled together, %.0f GB, but the cache %s holds %.0f GB: set a smaller "
                        "data.shuffle_shards or a larger STREAMCHAR_CACHE_GB, or they are downloaded again and again",
                        shards, size / 1e9, cache.folder, cache.limit / 1e9)

    def members(self, group: str, clip: LatentClip, in_shard: bool = False) -> NDArray[np.uint32]:
        """Numbers of the clips of the same ``speaker`` or ``look``; see :meth:`ClipTable.members`."""
        found = clip.members.get((group, in_shard))
        if found is None:
            found = clip.members[group, in_shard] = self.table.members(group, clip.number, in_shard)
        return found

    def usable(self, clip: LatentClip) -> bool:
        """Check a clip's values once per process; a bad one is quarantined (logged, listed, counted), never used.

        Raises:
            DataError: when more than ``max_bad_share`` of the clips are bad, or the storage is gone.
        """
        if not self._good[clip.number] and clip.number not in self._bad:
            self._looked += 1
            try:
                clip.check(self._check_values)
                self._good[clip.number] = 1
            except StorageError:
                raise
            except DataError as error:
                self._quarantine(clip, str(error))
        return bool(self._good[clip.number])

    def _quarantine(self, clip: LatentClip, why: str) -> None:
        self._bad.add(clip.number)
        shard = self.maps.name(self.table.shard_of(clip.number))
        try:
            key = clip.record.key
        except DataError:
            key = f"{shard}#{clip.number}"
        self.bad.add(key, why, shard)
        total = sum(int(s["clips"]) for s in self.index.shards)
        self._check_share(len(self.bad), total)
        if len(self._bad) > GRACE:
            self._check_share(len(self._bad), self._looked)

    def _check_share(self, bad: int, total: int) -> None:
        """Stop where too many clips are bad, of the set or of those that this process has looked at."""
        if bad > self.max_bad_share * total:
            listed = "; ".join(f"{k}: {v}" for k, v in list(self.quarantined.items())[-LISTED:])
            raise DataError(f"{bad} of {total} clips in {self.folder} are unusable, more than data.max_bad_share="
                            f"{self.max_bad_share}; repair the shards (stage=encode) or raise it; the last: {listed}")

    def _read_index(self) -> LatentIndex:
        path = self.folder / INDEX_NAME
        try:
            index = LatentIndex.from_json(path.read_bytes(), str(path))
        except OSError:
            raise DataError(f"no latents at {self.folder} ({INDEX_NAME} is missing); run stage=encode") from None
        if not index.shards:
            raise DataError(f"{path} lists no shards; run stage=encode again")
        return index

    def _check_geometry(self, clock: ChunkClock) -> None:
        for name in ("fps", "chunk_frames", "audio_rate", "sample_rate"):
            stored, wanted = getattr(self.index, name), getattr(clock, name)
            if abs(float(stored) - float(wanted)) > 1e-6:
                raise DataError(f"latents in {self.folder} were made for {name}={stored}, this run has {wanted}; "
                                f"use the same clock or run stage=encode again")

    def _check_fingerprints(self, wanted: dict[str, str | None]) -> None:
        for kind, stored in (("video", self.index.video_codec), ("audio", self.index.audio_codec)):
            if wanted.get(kind) and wanted[kind] != stored:
                raise DataError(f"latents in {self.folder} were made by the {kind} codec {stored[:12]}, this run's "
                                f"{kind} codec is {str(wanted[kind])[:12]}; use the codecs in encode/codecs or run "
                                f"stage=encode again")

    def _read_table(self) -> ClipTable:
        """The table of ``shards.json``'s shards; latents of an earlier version have none and are read through."""
        try:
            table = ClipTable.load(self.folder / TABLE_NAME)
            if table.made_of == shards_digest(self.index.shards):
                return table
        except DataError:
            if self.maps.remote:
                raise
        self.maps.readable_bytes()  # names a shard that is missing
        return joined_table(self.folder, self.index.shards)

    def _without_lost(self, table: ClipTable) -> ClipTable:
        """The clips that lie within what is there of their shards."""
        kept = np.ones(len(table), bool)
        for shard, (row, size) in enumerate(zip(self.index.shards, self.maps.readable_bytes(), strict=True)):
            clips = slice(*table.bounds[shard:shard + 2])
            if size is not None and size < int(row["bytes"]):
                kept[clips] = table.columns["at"][clips] + table.columns["size"][clips] <= size
            self._count_lost(shard, int(kept[clips].sum()), int(row["clips"]))
        return table if kept.all() else table.keep(kept)

    def _count_lost(self, shard: int, found: int, expected: int) -> None:
        if found == expected:
            return
        name = self.maps.name(shard)
        log.warning("%s is cut or damaged after %d of %d clips", name, found, expected)
        for lost in range(found, expected):
            self.bad.add(f"{Path(name).name}#{lost}", "lost in a damaged shard", name)
        if len(self.bad) > self.max_bad_share * sum(int(s["clips"]) for s in self.index.shards):
            raise DataError(f"latent shard {name} is cut: {found} of {expected} clips are readable; "
                            f"run stage=encode again")
