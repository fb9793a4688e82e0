"""One recording: its key, its speaker and where its text is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.intake.keys import slug
from datamodules.intake.tar_member import TarMember
from datamodules.intake.transcripts import READERS

NOT_RECORDINGS = (*READERS, ".csv", ".md", ".lab", ".png", ".jpg", ".jpeg")
"""Endings of what lies beside recordings; every other file is tried."""
SPEAKERLESS = {"wavs", "wav", "audio", "video", "videos", "clips", "mp3"}


@dataclass(frozen=True)
class Source:
    """One recording: ``key`` (unique, without dots), ``path``, ``speaker``, and its text: the file that holds it, or
    the words themselves. ``member``, ``text_member``: where ``path`` and ``transcript`` are a tar, what it is of it."""

    key: str
    path: Path
    speaker: str
    transcript: Path | None = None
    text: str | None = None
    member: TarMember | None = None
    text_member: TarMember | None = None

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.path}:{self.member.name}" if self.member else str(self.path)

    @property
    def file_name(self) -> str:
        """The recording's own name, without its folder."""
        return Path(self.member.name).name if self.member else self.path.name

    @property
    def count(self) -> int:
        """Recordings: a :class:`~datamodules.intake.bundle.Bundle` has several."""
        return 1

    def sources(self) -> Iterable[Source]:
        """Itself, as the only one."""
        return (self,)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its own, as the only one."""
        return (self.path,)

    def named(self, key_of: Callable[[Path], str]) -> Source:
        """Itself, with a key."""
        return replace(self, key=key_of(self.path))

    def fingerprint(self) -> str:
        """Hash of what decides the result: the files by name, size and time of change; one that is gone by now differs
        from all that it ever was."""
        parts: list[Any] = [self.key, self.speaker, self.text, *filter(None, (self.member, self.text_member))]
        for path in (self.path, self.transcript):
            if path is not None:
                parts.append(path.name)
                with suppress(OSError):
                    stat = path.stat()
                    parts += [stat.st_size, stat.st_mtime_ns]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def recordings(root: Path) -> Iterator[Path]:
    """All files below ``root`` that may be recordings, in order of their paths, hidden ones left out; links to folders
    are followed. A sub-folder that cannot be listed is given itself: reading it tells what is wrong."""
    return _below(root, frozenset())


def _below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        stat = folder.stat()
        place = (stat.st_dev, stat.st_ino)
        if place in above:
            return  # a link back
        with os.scandir(folder) as found:
            rows = sorted((row for row in found if not row.name.startswith(".")), key=lambda row: row.name)
    except OSError:
        yield folder
        return
    for row in rows:
        path = folder / row.name
        seen = path if row.is_symlink() else row  # a path takes a link to nowhere for no file
        if seen.is_dir():
            yield from _below(path, above | {place})
        elif seen.is_file() and path.suffix.lower() not in NOT_RECORDINGS:
            yield path


def speaker_of(path: Path, root: Path, transcript: Path | None) -> str:
    """The ``speaker`` of the JSON beside a recording, else the first sub-folder's name, else the recording itself."""
    if transcript is not None and transcript.suffix == ".json":
        try:
            if named := speaker_in(transcript.read_bytes()):
                return named
        except OSError:
            pass  # it is reported where it is read
    folders = [p for p in path.relative_to(root).parts[:-1] if p.lower() not in SPEAKERLESS]
    return folders[0] if folders else slug(path.stem)


def speaker_in(body: bytes) -> str | None:
    """The ``speaker`` of a JSON; None where it names none, or is none (which is reported where it is read)."""
    try:
        data = json.loads(body)
    except ValueError:
        return None
    return str(data["speaker"]) if isinstance(data, dict) and data.get("speaker") else None
