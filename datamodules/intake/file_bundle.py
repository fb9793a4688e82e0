"""Some hundred small sound files of a folder, made and kept together (an unpacked corpus).

Kept one by one each would cost two files in ``sources/``, as in a :class:`~datamodules.intake.bundle.Bundle`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules.intake.bundle import UTTERANCES, Bundle
from datamodules.intake.sources import Source, speaker_of

SMALL_BYTES = 4_000_000
"""Larger files are recordings of their own: of a bundle's utterance all clips are in memory together."""


@dataclass(frozen=True)
class FileBundle:
    """``files`` below ``root``. Whose JSON is to say who speaks has no speaker yet: it is read with the sound."""

    root: Path
    files: tuple[Source, ...]

    @property
    def key(self) -> str:
        """Its own; ``+`` stands in no recording's, and a tar's bundles end in a number."""
        return f"{self.files[0].key}+files"

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.files[0].name} .. {self.files[-1].name}"

    @property
    def count(self) -> int:
        """Recordings."""
        return len(self.files)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Of all its recordings."""
        return tuple(f.path for f in self.files)

    def named(self, key_of: Callable[[Path], str]) -> FileBundle:
        """Itself, with a key for each of its files."""
        return replace(self, files=tuple(f.named(key_of) for f in self.files))

    def fingerprint(self) -> str:
        """Hash of what decides the result: that of each file."""
        return hashlib.sha256(json.dumps([f.fingerprint() for f in self.files]).encode()).hexdigest()[:16]

    def sources(self) -> Iterable[Source]:
        """Its recordings, with their speakers."""
        return (spoken_by(f, self.root) for f in self.files)


def bundled(found: Iterable[Source | Bundle], root: Path) -> Iterator[Source | Bundle | FileBundle]:
    """The same recordings, small files in bundles.

    A file's name decides whether it begins a bundle, so that a new file changes the bundle that it falls into, and none
    after that; a bundle holds at most :data:`~datamodules.intake.bundle.UTTERANCES`.
    """
    files: list[Source] = []
    for row in found:
        if isinstance(row, Bundle) or not _is_small(row.path):
            yield row if isinstance(row, Bundle) else spoken_by(row, root)
            continue
        if files and (len(files) == UTTERANCES or _begins(row.path.relative_to(root))):
            yield FileBundle(root, tuple(files))
            files = []
        files.append(row)
    if files:
        yield FileBundle(root, tuple(files))


def spoken_by(source: Source, root: Path) -> Source:
    """With its speaker, where the corpus has not named one."""
    return source if source.speaker else replace(source, speaker=speaker_of(source.path, root, source.transcript))


def _begins(path: Path) -> bool:
    number = zlib.crc32(str(path).encode(errors="surrogateescape"))
    return number % (UTTERANCES // 2) == 0


def _is_small(path: Path) -> bool:
    try:
        return path.suffix != ".tar" and path.is_file() and path.stat().st_size <= SMALL_BYTES
    except OSError:  # it is told when it is read
        return False
