"""Finished recordings become shards: which go to validation, and tars of about the same number of clips."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.clip_reader import iterate_shard
from datamodules.intake.sample import recording_of
from datamodules.intake.staging import SourceRecord, Staging
from datamodules.shard_writer import ShardWriter
from datamodules.shards import INDEX_NAME, ShardIndex
from streamchar.errors import DataError


@dataclass(frozen=True)
class Packed:
    """One shard to write: its file name and its clips, as (recording's key, clip's key)."""

    file: str
    clips: tuple[tuple[str, str], ...]
    recipe: str


def pack(records: Sequence[SourceRecord], staging: Staging, folder: Path, name: str, val_share: float,
         shard_clips: int, by_speaker: bool = False) -> ShardIndex:
    """Write the shards of all clips; those that are there already with the same clips are kept, others go.

    Args:
        records: of all recordings, by key.
        folder: receives ``NAME-{train,val}-*.tar`` and ``shards.json``.
        val_share: share of the recordings in validation.
        shard_clips: clips per shard.
        by_speaker: validation is a share of the speakers, where there are enough of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plans = plan_shards(records, name, val_share, shard_clips, by_speaker)
    index = _kept(plans, folder)
    for path in [*folder.glob("*.tar"), *folder.glob(".*.tmp")]:
        if path.name not in index.entries:
            path.unlink()
    seconds = {c["key"]: float(c["seconds"]) for r in records for c in r.clips}
    for plan in plans:
        if plan.file not in index.entries:
            with ShardWriter(folder / plan.file, plan.recipe) as writer:
                wanted = {key for _, key in plan.clips}
                for source in dict.fromkeys(source for source, _ in plan.clips):
                    for raw in iterate_shard(staging.tar(source)):
                        if raw.key in wanted:
                            writer.write(raw.key, raw.files, seconds[raw.key])
            assert writer.entry is not None
            index.add(writer.entry)
            index.save(folder / INDEX_NAME)
    index.save(folder / INDEX_NAME)
    return index


def plan_shards(records: Sequence[SourceRecord], name: str, val_share: float, shard_clips: int,
                by_speaker: bool = False) -> list[Packed]:
    """Which clips go where: a recording, or all of a speaker, is training or validation, by a hash of its name.

    Speakers are held out where ``val_share`` of them is at least one; of fewer a single one would be too large a share.
    """
    speakers = dict.fromkeys(str(c["speaker"]) for r in records for c in r.clips)
    by_speaker = by_speaker and len(speakers) * val_share >= 1

    def owner(clip: dict[str, Any]) -> str:
        return str(clip["speaker"]) if by_speaker else recording_of(clip["key"])

    held_out = validation_keys(list(dict.fromkeys(owner(c) for r in records for c in r.clips)), val_share)
    plans = []
    for split in ("train", "val"):
        clips = [(r.key, c["key"], r.recipe) for r in records for c in r.clips
                 if (owner(c) in held_out) == (split == "val")]
        for number, start in enumerate(range(0, len(clips), shard_clips)):
            part = clips[start:start + shard_clips]
            recipe = hashlib.sha256(json.dumps(part).encode()).hexdigest()
            plans.append(Packed(f"{name}-{split}-{number:05d}.tar", tuple((s, k) for s, k, _ in part), recipe))
    return plans


def validation_keys(keys: Sequence[str], share: float) -> set[str]:
    """Recordings (or speakers) held out: those whose hash falls into ``share``, at least one of several; adding some
    moves none of the others."""
    place = {key: zlib.crc32(key.encode()) / 2**32 for key in keys}
    chosen = {key for key in keys if place[key] < share}
    if not chosen and share > 0 and len(keys) > 1:
        chosen = {min(keys, key=lambda k: place[k])}
    return chosen


def _kept(plans: Sequence[Packed], folder: Path) -> ShardIndex:
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
