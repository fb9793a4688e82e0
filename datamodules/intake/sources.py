"""One recording: its key, its speaker and where its text is."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.intake.tar_member import TarMember
from datamodules.intake.transcripts import READERS

NOT_RECORDINGS = (*READERS, ".csv", ".md", ".lab", ".png", ".jpg", ".jpeg")
"""Endings of what lies beside recordings; every other file is tried."""
LONGEST_KEY = 80
"""Characters; names in a tar have at most 100."""
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

    def named(self, key: str) -> Source:
        """Itself, with a key."""
        return replace(self, key=key)

    def fingerprint(self) -> str:
        """Hash of what decides the result: the files by name, size and time of change."""
        parts: list[Any] = [self.key, self.speaker, self.text, *filter(None, (self.member, self.text_member))]
        for path in (self.path, self.transcript):
            if path is not None:
                stat = path.stat()
                parts += [path.name, stat.st_size, stat.st_mtime_ns]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def recordings(root: Path) -> Iterable[Path]:
    """All files below ``root`` that may be recordings, hidden ones left out."""
    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_file() and not hidden and path.suffix.lower() not in NOT_RECORDINGS:
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


def distinct_keys(keys: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The keys of ``paths``; those that several would share, and long ones, end in a number of their own."""
    found, counts = [], Counter(keys)
    for key, path in zip(keys, paths, strict=True):
        number = f"-{zlib.crc32(path.encode()):08x}"
        fits = counts[key] == 1 and len(key) <= LONGEST_KEY
        found.append(key if fits else key[:LONGEST_KEY - len(number)] + number)
    return found


def slug(name: str) -> str:
    """A name as part of a key: letters, digits, ``_`` and ``-``."""
    return re.sub(r"[^\w-]+", "-", name, flags=re.ASCII).strip("-") or "x"
