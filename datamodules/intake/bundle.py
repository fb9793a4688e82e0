"""Some hundred utterances of one tar, made and kept together (Emilia as published).

A corpus has millions of them: kept one by one each would cost two files, and a list of them all much time and space. A
bundle knows where it begins and how long it is; the process that works on it looks its utterances up in the tar.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datamodules.intake.keys import Hashes, distinct_key, slug
from datamodules.intake.rejection import Rejected
from datamodules.intake.sources import NOT_RECORDINGS, Source, speaker_in
from datamodules.intake.tar_member import TarMember
from streamchar.errors import DataError

UTTERANCES = 200
"""Of a bundle at most: what Ctrl-C costs each process, and how much one record file holds."""


@dataclass(frozen=True)
class Bundle:
    """The utterances ``first`` .. ``first + count - 1`` of a tar, in its order; ``prefix`` begins their keys."""

    path: Path
    first: int
    count: int
    prefix: str = ""

    @property
    def key(self) -> str:
        """Its own, without dots; ``+`` stands in no other recording's."""
        return f"{self.prefix}+{self.first:06d}"

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.path}:{self.first}..{self.first + self.count - 1}"

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of its tar."""
        return (self.path,)

    def named(self, key_of: Callable[[Path], str]) -> Bundle:
        """Itself, with the key of its tar."""
        return replace(self, prefix=key_of(self.path))

    def fingerprint(self) -> str:
        """Hash of what decides the result: the tar by name, size and time of change, and the place in it."""
        stat = self.path.stat()
        parts = [self.prefix, self.first, self.count, self.path.name, stat.st_size, stat.st_mtime_ns]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def sources(self) -> Iterable[Source]:
        """Its utterances; a speaker is the one of the JSON, else the tar.

        Raises:
            DataError: where the tar holds fewer than were listed.
        """
        held = _contents(self.path)
        keys = [f"{self.prefix}+{slug('-'.join(PurePosixPath(stem).parts))}" for stem in held.sounds]
        repeated = Hashes(keys).repeated()
        keys = [distinct_key(key, stem, repeated) for key, stem in zip(keys, held.sounds, strict=True)]
        rows = list(zip(keys, held.sounds.items(), strict=True))[self.first:self.first + self.count]
        if len(rows) != self.count:
            raise DataError(f"{self.path} has {len(held.sounds)} recordings now, and had more when listed; if it "
                            "can be read again, say the same command once more: what is finished is kept")
        for key, (stem, sound) in rows:
            text = held.texts.get(stem)
            try:
                told = speaker_in(text.read(self.path)) if text else None
            except Rejected:  # told when the utterance itself is read
                told = None
            speaker = told or slug(self.path.stem)
            yield Source(key, self.path, speaker, self.path if text else None, None, sound, text)


def bundles(tar: Path) -> list[Bundle | Source]:
    """A tar of ``NAME.mp3`` and ``NAME.json`` (WebDataset, in any order) as bundles, without keys yet.

    What follows a damaged header is lost: the tar itself is then one more source, which is reported when it is read.
    """
    held = _contents(tar)
    rows: list[Bundle | Source] = [] if held.whole else [Source("", tar, slug(tar.stem))]
    total = len(held.sounds)
    return rows + [Bundle(tar, first, min(UTTERANCES, total - first)) for first in range(0, total, UTTERANCES)]


class _Contents(NamedTuple):
    """Sounds and texts by their name without its ending; ``whole``: no header is damaged."""

    sounds: dict[str, TarMember]
    texts: dict[str, TarMember]
    whole: bool


def _contents(tar: Path) -> _Contents:
    stat = tar.stat()
    return _read_contents(tar, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1)
def _read_contents(tar: Path, size: int, changed: int) -> _Contents:
    """Of the tar of this size and time; the last one is remembered, since its bundles follow one another."""
    held = _Contents({}, {}, True)
    try:
        with tarfile.open(tar, "r:") as members:
            for info in members:
                path = PurePosixPath(info.name)
                kind, stem = path.suffix.lower(), str(path.with_suffix(""))
                if info.isfile() and (kind == ".json" or kind not in NOT_RECORDINGS):
                    rows = held.texts if kind == ".json" else held.sounds
                    rows[stem] = TarMember(info.name, info.offset_data, info.size)
    except (tarfile.TarError, OSError):
        return held._replace(whole=False)
    return held
