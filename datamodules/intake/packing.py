"""Finished recordings become shards: which go to validation, and tars of about the same number of clips.

Records are read from their files, one after another, as often as they are needed: a corpus has millions of clips.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.clip_reader import iterate_shard
from datamodules.intake.keys import Hashes
from datamodules.intake.sample import recording_of
from datamodules.intake.staging import SourceRecord, Staging
from datamodules.shard_writer import ShardWriter
from datamodules.shards import INDEX_NAME, ShardIndex
from streamchar.errors import DataError

SAVED_EACH = 20
"""The index is saved when it has grown by one in this many: that is what a stopped run writes again."""


@dataclass(frozen=True)
class Packed:
    """One shard to write: its file name and its clips, as (recording's key, clip's key, seconds)."""

    file: str
    clips: tuple[tuple[str, str, float], ...]
    recipe: str


def pack(records: Iterable[SourceRecord], staging: Staging, folder: Path, name: str, val_share: float,
         shard_clips: int, by_speaker: bool = False, packed: Callable[[int], None] = lambda _: None) -> ShardIndex:
    """Write the shards of all clips; those that are there already with the same clips are kept, others go.

    Args:
        records: of all recordings, in order; read several times.
        folder: receives ``NAME-{train,val}-*.tar`` and ``shards.json``.
        val_share: share of the recordings in validation.
        shard_clips: clips per shard.
        by_speaker: validation is a share of the speakers, where there are enough of them.
        packed: called with the number of clips of each shard that is there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held_out = HoldOut.of(records, val_share, by_speaker)
    index = _kept(plan_shards(records, name, held_out, shard_clips), folder)
    for path in [*folder.glob("*.tar"), *folder.glob(".*.tmp")]:
        if path.name not in index.entries:
            path.unlink()
    index.save(folder / INDEX_NAME)
    unsaved = 0
    for plan in plan_shards(records, name, held_out, shard_clips):
        if plan.file not in index.entries:
            with ShardWriter(folder / plan.file, plan.recipe) as writer:
                wanted = {key: seconds for _, key, seconds in plan.clips}
                for source in dict.fromkeys(source for source, _, _ in plan.clips):
                    for raw in iterate_shard(staging.tar(source)):
                        if raw.key in wanted:
                            writer.write(raw.key, raw.files, wanted[raw.key])
            assert writer.entry is not None
            index.add(writer.entry)
            unsaved += 1
            if unsaved * SAVED_EACH >= len(index.entries):
                index.save(folder / INDEX_NAME)
                unsaved = 0
        packed(len(plan.clips))
    index.save(folder / INDEX_NAME)
    return index


def plan_shards(records: Iterable[SourceRecord], name: str, held_out: HoldOut, shard_clips: int) -> Iterator[Packed]:
    """Which clips go where, shard after shard as each is full; those of a split in the order of ``records``."""
    open_: dict[str, list[tuple[str, str, str, float]]] = {"train": [], "val": []}
    numbers = dict.fromkeys(open_, 0)

    def shard(split: str) -> Packed:
        part, open_[split] = open_[split], []
        numbers[split] += 1
        recipe = hashlib.sha256(json.dumps([row[:3] for row in part]).encode()).hexdigest()
        return Packed(f"{name}-{split}-{numbers[split] - 1:05d}.tar", tuple((s, k, t) for s, k, _, t in part), recipe)

    for record in records:
        for clip in record.clips:
            split = "val" if held_out.has(clip) else "train"
            open_[split].append((record.key, clip["key"], record.recipe, float(clip["seconds"])))
            if len(open_[split]) == shard_clips:
                yield shard(split)
    for split, part in open_.items():
        if part:
            yield shard(split)


class HoldOut:
    """What is validation: recordings, or speakers, whose hash falls into ``share``, at least one of several; adding
    some moves none of the others.

    Args:
        owners: names of all recordings, or speakers; they may occur several times.
        share: of them, 0 to 1.
        by_speaker: whether they are speakers.
    """

    def __init__(self, owners: Iterable[str], share: float, by_speaker: bool = False) -> None:
        self.share, self.by_speaker = share, by_speaker
        least: str | None = None
        several = False
        for owner in owners:
            several |= least is not None and owner != least
            if least is None or _place(owner) < _place(least):
                least = owner
        self._only = least if several and share > 0 else None
        """Held out whatever its hash; where others fall into the share, it does too."""

    @classmethod
    def of(cls, records: Iterable[SourceRecord], share: float, by_speaker: bool) -> HoldOut:
        """Speakers are held out where the share is at least one of them: of fewer a single one would be too much."""
        if by_speaker:
            by_speaker = Hashes(str(c["speaker"]) for r in records for c in r.clips).distinct() * share >= 1
        return cls((_owner(c, by_speaker) for r in records for c in r.clips), share, by_speaker)

    def __contains__(self, owner: str) -> bool:
        return _place(owner) < self.share or owner == self._only

    def has(self, clip: dict[str, Any]) -> bool:
        """Whether a clip (a row of a record) is validation."""
        return _owner(clip, self.by_speaker) in self


def _owner(clip: dict[str, Any], by_speaker: bool) -> str:
    return str(clip["speaker"]) if by_speaker else recording_of(clip["key"])


def _place(owner: str) -> float:
    return zlib.crc32(owner.encode()) / 2**32


def _kept(plans: Iterable[Packed], folder: Path) -> ShardIndex:
    try:
        old = ShardIndex.load(folder / INDEX_NAME) if (folder / INDEX_NAME).is_file() else ShardIndex()
    except DataError:
        old = ShardIndex()
    index = ShardIndex()
    for plan in plans:
        entry, path = old.entries.get(plan.file), folder / plan.file
        if entry and entry.recipe == plan.recipe and path.is_file() and path.stat().st_size == entry.bytes:
            index.add(entry)
    return index
