"""What has been made of each recording so far: a small tar and a record, both whole or not there.

This is what makes the work resumable: a recording whose files and options are unchanged is never read again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.intake.config import IntakeConfig
from datamodules.intake.keys import Hashes
from datamodules.intake.listing import Work
from datamodules.intake.rejection import Rejection
from datamodules.intake.sample import Sample
from datamodules.shard_writer import ShardWriter

VERSION = 3
"""Raised when the same recording and options give another result."""
STILL_PX, MOST_STILLS = 96, 120
"""Side of the pictures that are kept for people, and how many of a recording, spread over it (a JPEG is at most 65,500
pixels wide)."""
NEUTRAL = ("input", "workers", "val_share", "shard_clips")
"""Options that do not change what is made of a recording."""


@dataclass
class SourceRecord:
    """The result of one recording, or of the ``recordings`` of a bundle: the ``clips`` (key, seconds, speaker and what
    was measured) in its tar, and what was rejected."""

    key: str
    file: str
    recipe: str
    clips: list[dict[str, Any]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    recordings: int = 1


class Records:
    """The finished records under ``keys``, in this order, read from their files as often as wanted."""

    def __init__(self, keys: Iterable[str], staging: Staging) -> None:
        self._keys, self._staging = keys, staging

    def __iter__(self) -> Iterator[SourceRecord]:
        return map(self._staging.record, self._keys)


class Staging:
    """The folder of tars, stills and records.

    Args:
        folder: ``prepare/sources``.
        recipe: videos, grid or speech.
        cfg: the options.
    """

    def __init__(self, folder: Path, recipe: str, cfg: IntakeConfig) -> None:
        self.folder = folder
        options = {k: v for k, v in asdict(cfg).items() if k not in NEUTRAL}
        # Models count by what they are called and how large they are, wherever they lie.
        options |= {k: _identity(options[k]) for k in ("detector", "vad", "asr", "aligner")}
        self._options = json.dumps([VERSION, recipe, options], sort_keys=True)
        folder.mkdir(parents=True, exist_ok=True)

    def recipe_of(self, source: Work) -> str:
        """Fingerprint of all that decides a recording's result."""
        return hashlib.sha256((self._options + source.fingerprint()).encode()).hexdigest()[:16]

    def tar(self, key: str) -> Path:
        """The recording's clips."""
        return self.folder / f"{key}.tar"

    def still(self, key: str) -> Path:
        """A picture of each of its clips, of many clips some, side by side."""
        return self.folder / f"{key}.jpg"

    def record(self, key: str) -> SourceRecord:
        """What was kept under ``key``; OSError, ValueError, KeyError or TypeError where that is no record."""
        row = json.loads((self.folder / f"{key}.json").read_text())
        return SourceRecord(**{**row, "rejections": [Rejection(**r) for r in row["rejections"]]})

    def finished(self, source: Work) -> SourceRecord | None:
        """The record of an earlier run, where it still holds."""
        try:
            record = self.record(source.key)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        good = record.recipe == self.recipe_of(source) and (not record.clips or self.tar(source.key).is_file())
        return record if good else None

    def keep(self, source: Work, made: Iterable[Sample | Rejection]) -> SourceRecord:
        """Write a recording's clips as they are made, so that a long one needs no more memory, then its record, which
        marks it finished."""
        record = SourceRecord(source.key, source.name, self.recipe_of(source), recordings=source.count)
        stills: list[Any] = []
        every = 1
        (self.folder / f"{source.key}.json").unlink(missing_ok=True)
        with ShardWriter(self.tar(source.key)) as writer:
            for result in made:
                if isinstance(result, Rejection):
                    record.rejections.append(result)
                    continue
                writer.write(result.key, result.files, result.seconds)
                meta = result.meta
                record.clips.append({"key": result.key, "seconds": result.seconds, "speaker": meta["speaker"],
                                     "text": meta["text"], "measured": meta["measured"]})
                if result.still is not None and (len(record.clips) - 1) % every == 0:
                    stills.append(_small(result.still))
                if len(stills) > MOST_STILLS:
                    stills, every = stills[::2], 2 * every
        if not record.clips:
            self.tar(source.key).unlink()
        if stills:
            _save_stills(stills, self.still(source.key))
        _write(self.folder / f"{source.key}.json", json.dumps(asdict(record)).encode())
        return record

    def clean(self, keys: Iterable[str]) -> None:
        """Remove what was left half-written, and what belongs to recordings that are gone."""
        known = Hashes(keys)
        with os.scandir(self.folder) as found:
            for file in found:
                if file.name.startswith(".") or Path(file.name).stem not in known:
                    os.unlink(file.path)


def _small(still: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(still).resize((STILL_PX, STILL_PX), Image.Resampling.BOX)


def _save_stills(stills: list[Any], path: Path) -> None:
    from PIL import Image

    row = Image.new("RGB", (STILL_PX * len(stills), STILL_PX))
    for i, still in enumerate(stills):
        row.paste(still, (i * STILL_PX, 0))
    body = io.BytesIO()
    row.save(body, "JPEG", quality=85)
    _write(path, body.getvalue())


def _write(path: Path, body: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(body)
    os.replace(temporary, path)


def _identity(model: str | None) -> list[Any] | None:
    """Name and sizes of a model's files."""
    if not model:
        return None
    path = Path(model)
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return [[p.name, p.stat().st_size] for p in files]
