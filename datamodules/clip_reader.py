"""Reading shards: tar members grouped by key, decoded to clips, damaged ones sent to quarantine."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from datamodules.clip import Clip, decode_clip
from datamodules.quarantine import DamagedSample, Quarantine
from datamodules.shards import Shard, open_shard
from streamchar.errors import DataError


@dataclass
class RawSample:
    """One sample as stored: its key and its files' bytes by extension."""

    key: str
    files: dict[str, bytes]
    shard: str


def iterate_shard(path: Shard, quarantine: Quarantine | None = None) -> Iterator[RawSample]:
    """The samples of one tar, in order. A tar cut in the middle gives what precedes the cut.

    Raises:
        DataError: without a quarantine, if the tar is cut or no tar.
    """
    key: str | None = None
    files: dict[str, bytes] = {}
    complete: set[str] = set()
    try:
        with open_shard(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                name, _, extension = os.path.basename(member.name).partition(".")
                if name != key and key is not None:
                    complete = set(files)
                    yield RawSample(key, files, str(path))
                    files = {}
                key = name
                files[extension.lower()] = tar.extractfile(member).read()  # type: ignore[union-attr]
        if key is not None:
            yield RawSample(key, files, str(path))
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise DataError(f"shard {path} does not exist; check data.shards or run stage=prepare") from error
        if key is not None and complete and set(files) == complete:
            yield RawSample(key, files, str(path))
        reason = f"shard is cut or damaged after {key or 'its start'}: {error}"
        if quarantine is None:
            raise DataError(f"{path}: {reason}; copy it again or prepare it again") from error
        quarantine.add(key or "(first)", reason, str(path))


def read_clips(shards: Sequence[Shard], quarantine: Quarantine, *, fps: float | None = None,
               sample_rate: int | None = None, keep: Callable[[str], bool] | None = None) -> Iterator[Clip]:
    """All usable clips of ``shards``, in shard and key order.

    Args:
        shards: tar files (see :func:`datamodules.shards.expand_shards`).
        quarantine: counts and lists the damaged samples; its rate is checked while reading and at the end.
        fps: required frame rate of the pictures, or None for any.
        sample_rate: Hz of the waves, or None for their own.
        keep: called with each key before decoding; False skips it without counting (for a part of a data set).

    Raises:
        DataError: no shards, no usable sample, or more damaged samples than the quarantine allows.
    """
    if not shards:
        raise DataError("no shards to read; check data.shards (a folder, glob or list of tars) or run stage=prepare")
    skipped = 0
    for path in shards:
        for raw in iterate_shard(path, quarantine):
            if keep is not None and not keep(raw.key):
                skipped += 1
                continue
            try:
                clip = decode_clip(raw.key, raw.files, fps=fps, sample_rate=sample_rate, shard=raw.shard)
            except DamagedSample as damage:
                quarantine.add(raw.key, str(damage), raw.shard)
                continue
            quarantine.accept()
            yield clip
    if not (skipped and quarantine.good == 0 and quarantine.damaged == 0):
        quarantine.finish()
