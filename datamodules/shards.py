"""Finding shards: what a ``data.shards`` value names, which split a shard belongs to, and the ``shards.json`` index.

A shard is a plain tar in WebDataset order: the files of one sample follow one another and share the key, which is the
file name up to its first dot. Names carry the split: ``...-train-00000.tar`` or ``...-val-00000.tar``. A shard lies in
a file or behind an address (``http(s)://``, ``s3://``, or ``pipe:`` and a command that writes it).
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from datamodules.remote import is_remote, join
from datamodules.shard_cache import ShardCache
from streamchar.errors import DataError

log = logging.getLogger(__name__)

INDEX_NAME = "shards.json"
ShardSpec = str | os.PathLike | Sequence[str | os.PathLike]


@dataclass(frozen=True)
class RemoteShard:
    """A shard behind an address; it is read through the cache."""

    url: str

    @property
    def name(self) -> str:
        """The file's name: the last part of the address, or of the command's last word that names a tar."""
        words = [w for w in self.url.split() if ".tar" in w] or [self.url]
        return words[-1].split("?")[0].rstrip("/").split("/")[-1]

    def __str__(self) -> str:
        return self.url


Shard = Path | RemoteShard


def open_shard(shard: Shard) -> BinaryIO:
    """A shard's bytes.

    Raises:
        OSError: a file that is not there; DataError: an address that cannot be read.
    """
    return ShardCache().open(shard.url) if isinstance(shard, RemoteShard) else open(shard, "rb")


@dataclass(frozen=True)
class ShardEntry:
    """One shard: file name, number of samples, sha256 of the tar, summed duration in seconds.

    ``recipe`` is a fingerprint of what made the shard (empty when unknown); ``bytes`` its size on disk.
    """

    file: str
    samples: int
    sha256: str
    seconds: float
    bytes: int = 0
    recipe: str = ""


@dataclass
class ShardIndex:
    """The table of a folder's shards, by file name."""

    entries: dict[str, ShardEntry] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Samples of all shards."""
        return sum(e.samples for e in self.entries.values())

    @property
    def seconds(self) -> float:
        """Duration of all shards."""
        return sum(e.seconds for e in self.entries.values())

    def add(self, entry: ShardEntry) -> None:
        """Insert or replace the row of ``entry.file``."""
        self.entries[entry.file] = entry

    def save(self, path: Path) -> None:
        """Write atomically: a reader sees the old table or the new one."""
        rows = [asdict(self.entries[name]) for name in sorted(self.entries)]
        body = {"version": 1, "samples": self.samples, "seconds": round(self.seconds, 3), "shards": rows}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(body, indent=1) + "\n")
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> ShardIndex:
        """Read a table.

        Raises:
            DataError: if the file is not such a table.
        """
        return cls.read(path.read_bytes(), str(path))

    @classmethod
    def read(cls, data: bytes, path: str) -> ShardIndex:
        """The table in ``data``, which comes from ``path``; errors as :meth:`load`."""
        try:
            rows = json.loads(data)["shards"]
            return cls({row["file"]: ShardEntry(**row) for row in rows})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no shard index ({error}); delete it and it is computed again") from error


def expand_braces(pattern: str) -> list[str]:
    """``a-{000..002}.tar`` and ``{x,y}.tar`` to the names they stand for; other text unchanged."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if not match:
        return [pattern]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if numbers:
        width = len(numbers[1])
        choices = [f"{i:0{width}d}" for i in range(int(numbers[1]), int(numbers[2]) + 1)]
    else:
        choices = match[1].split(",")
    return [out for c in choices for out in expand_braces(pattern[: match.start()] + c + pattern[match.end():])]


def expand_shards(spec: ShardSpec, base: Path | None = None) -> list[Shard]:
    """A folder, glob, brace list, file, address or a list of these -> tars, sorted, each once.

    Relative names are looked up from ``base`` (default: the current directory). Addresses may hold brace lists; one
    that ends in ``/`` names the shards that its ``shards.json`` lists.

    Raises:
        DataError: if a name matches nothing, or a folder holds no tar.
    """
    if isinstance(spec, (str, os.PathLike)):
        spec = [spec]
    found: dict[Shard, None] = {}
    for item in spec:
        for name in expand_braces(os.path.expanduser(os.fspath(item))):
            if is_remote(name):
                found.update(dict.fromkeys(_remote(name)))
                continue
            if scheme := re.match(r"[\w+.-]+://", name):
                raise DataError(f"shards: {name}: {scheme[0]} is not read; give a http(s):// or s3:// address, or "
                                "pipe: and a command that writes the tar, such as 'pipe:gsutil cat gs://...'")
            path = Path(name) if base is None else base / name
            matches = _match(path)
            if not matches:
                kind = "holds no .tar file" if path.is_dir() else "does not exist"
                raise DataError(f"shards: {path} {kind} (given: {os.fspath(item)!r}); give a folder of tars, a glob, a "
                                "brace list or a list of files as data.shards, or leave it out to prepare the puppet")
            found.update(dict.fromkeys(matches))
    if not found:
        raise DataError("shards: an empty list was given; name at least one tar, or leave data.shards out to prepare "
                        "the puppet (stage=prepare)")
    return sorted(found, key=lambda shard: (isinstance(shard, RemoteShard), str(shard)))


def _remote(name: str) -> list[RemoteShard]:
    if name.endswith("/") and not name.startswith("pipe:"):
        with ShardCache().open(join(name, INDEX_NAME)) as file:
            rows = ShardIndex.read(file.read(), join(name, INDEX_NAME))
        return [RemoteShard(join(name, file)) for file in rows.entries]
    if "*" in name and not name.startswith("pipe:"):
        raise DataError(f"shards: {name} cannot be listed; write a brace list such as x-{{000..099}}.tar, or give the "
                        f"folder's address with a / at its end if it has a {INDEX_NAME}")
    return [RemoteShard(name)]


def _match(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.tar"))
    if path.is_file():
        return [path]
    return [Path(p) for p in sorted(glob.glob(str(path))) if os.path.isfile(p)]


def split_shards(paths: Iterable[Shard]) -> tuple[list[Shard], list[Shard]]:
    """(train, val) by file name: ``-val-`` (or ``-test-``) is validation, everything else training."""
    train: list[Shard] = []
    val: list[Shard] = []
    for path in paths:
        (val if re.search(r"[-_.](val|test)[-_.]", path.name) else train).append(path)
    return train, val


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def count_samples(shard: Shard) -> int:
    """Samples of a shard by reading it; one that is cut counts what precedes the cut."""
    keys: set[str] = set()
    with open_shard(shard) as file, suppress(tarfile.TarError), tarfile.open(fileobj=file, mode="r:") as tar:
        keys.update(os.path.basename(member.name).partition(".")[0] for member in tar if member.isfile())
    return len(keys)


def index_shard(path: Path) -> ShardEntry:
    """Count one shard by reading it: samples and their durations come from its JSON members.

    A shard cut in the middle counts what precedes the cut; the reader quarantines the rest.
    """
    keys: set[str] = set()
    seconds = 0.0
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                key, _, extension = os.path.basename(member.name).partition(".")
                keys.add(key)
                if extension == "json":
                    seconds += _duration(tar, member)
    except tarfile.TarError:
        pass
    return ShardEntry(path.name, len(keys), sha256_of(path), round(seconds, 3), path.stat().st_size)


def _duration(tar: tarfile.TarFile, member: tarfile.TarInfo) -> float:
    try:
        meta = json.loads(tar.extractfile(member).read())  # type: ignore[union-attr]
        if "frames" in meta and meta.get("fps"):
            return float(meta["frames"]) / float(meta["fps"])
        return float(meta.get("seconds", 0.0))
    except (ValueError, TypeError, AttributeError):
        return 0.0


def index_shards(paths: Sequence[Path], cache: Path | None = None) -> ShardIndex:
    """The index of ``paths``: from the folders' ``shards.json`` where they have one, computed where not.

    Nothing is ever written beside the shards. With ``cache`` (a file of ours) computed rows are kept there, and are
    used again while name and size of the shard are unchanged.

    Raises:
        DataError: if the shards hold no sample at all.
    """
    known = ShardIndex.load(cache) if cache is not None and cache.is_file() else ShardIndex()
    folders = {p.parent for p in paths}
    shipped = {f: ShardIndex.load(f / INDEX_NAME) for f in folders if (f / INDEX_NAME).is_file()}
    index = ShardIndex()
    for path in paths:
        entry = shipped[path.parent].entries.get(path.name) if path.parent in shipped else known.entries.get(path.name)
        if entry is None or (path.parent not in shipped and entry.bytes != path.stat().st_size):
            entry = index_shard(path)
        elif entry.bytes and entry.bytes != path.stat().st_size:
            log.warning("%s has %d bytes, %s beside it says %d: the shard was cut or changed; reading what is there",
                        path, path.stat().st_size, INDEX_NAME, entry.bytes)
            entry = index_shard(path)
        index.add(entry)
    if index.samples == 0:
        raise DataError(f"shards: {len(paths)} file(s) such as {paths[0] if paths else '(none)'} hold no sample; "
                        "prepare them again (stage=prepare) or check data.shards")
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        index.save(cache)
    return index
