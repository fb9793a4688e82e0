"""Encoding one shard of clips into one shard of latents: the unit of work that is resumed and given to processes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch

from datamodules.atomic_file import remove_parts
from datamodules.claims import claimed
from datamodules.clip import Clip, decode_clip
from datamodules.clip_encoder import ClipEncoder
from datamodules.clip_reader import iterate_shard
from datamodules.config import RespokenConfig
from datamodules.latent_writer import LatentShardWriter, finished_record, shard_record
from datamodules.orphans import end_with_parent
from datamodules.quarantine import DamagedSample, Quarantine
from datamodules.respoken import respoken
from datamodules.shards import RemoteShard, Shard
from streamchar.clock import ChunkClock
from streamchar.errors import InputError


@dataclass(frozen=True)
class EncodeSettings:
    """What all shards of a run have in common; ``codecs`` is the folder with ``video`` and ``audio``."""

    codecs: Path
    fingerprints: tuple[str, str]
    clock: ChunkClock
    size: int
    offsets: tuple[int, ...]
    dtype: str
    device: str = "cpu"


@dataclass(frozen=True)
class Respeaking:
    """A job that encodes not a shard's clips but new ones made of their words; ``avoid``: sentences not to make, and
    ``avoided``, their hash."""

    config: RespokenConfig
    avoid: frozenset[str]
    avoided: str


@dataclass(frozen=True)
class EncodeJob:
    """One shard: from ``source`` to ``target``, at most ``limit`` clips (0: all); ``group``: its set in a mixture."""

    source: Shard
    target: Path
    settings: EncodeSettings
    limit: int = 0
    group: str = ""
    respeaking: Respeaking | None = None

    @property
    def recipe(self) -> str:
        """Fingerprint of all that the latents depend on; a source file counts by size and time of change."""
        s = self.settings
        parts = [*s.fingerprints, repr(s.clock), s.size, s.offsets, s.dtype, self.limit, *identity(self.source)]
        if self.respeaking is not None:
            said = self.respeaking.config
            parts += [said.times, repr(said.switch_p), repr(said.speeds), self.respeaking.avoided]
            parts += [said.sentences, repr(said.pause_s)] if said.sentences > 1 else []
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def clips(self, quarantine: Quarantine) -> Iterator[Clip]:
        """What is encoded, decoded; damaged clips go to the quarantine."""
        if self.respeaking is None:
            return clips_of(self.source, quarantine, self.limit)
        # Damage is listed where the clips themselves are encoded.
        heard = clips_of(self.source, Quarantine(max_rate=1.0, quiet=True), self.limit, pictures=False)
        return respoken(heard, self.respeaking.config, self.respeaking.avoid, self.source.name)

    def finished(self) -> dict[str, Any] | None:
        """The record of an earlier run, if its shard is complete and still right."""
        return finished_record(self.target, self.recipe)


def identity(source: Shard) -> list[str | int]:
    """What tells a shard from another one of its name: name, size and time of change, or its address."""
    if isinstance(source, RemoteShard):
        return [source.url]
    stat = source.stat()
    return [source.name, stat.st_size, stat.st_mtime_ns]


def clips_of(source: Shard, quarantine: Quarantine, limit: int = 0, pictures: bool = True) -> Iterator[Clip]:
    """Decoded clips of a shard, at most ``limit``, with pictures or sound alone; damaged ones go to the quarantine."""
    found = 0
    for raw in iterate_shard(source, quarantine):
        try:
            clip = decode_clip(raw.key, raw.files, shard=raw.shard, pictures=pictures)
        except DamagedSample as damage:
            quarantine.add(raw.key, str(damage), raw.shard)
            continue
        yield clip
        found += 1
        if limit and found >= limit:
            return


def encode_if_free(job: EncodeJob, on_clip: Callable[[], None] = lambda: None) -> dict[str, Any] | None:
    """Encode one shard, or find it done; returns its record, or None while another process is at it.

    Raises:
        InputError: as :func:`encode_shard`, and if another process encodes it with other settings.
    """
    done = job.finished()
    if done is not None:
        return done
    with claimed(job.target, job.recipe) as ours:
        if not ours:
            return None
        remove_parts(job.target)
        return encode_shard(job, on_clip)


def encode_shard(job: EncodeJob, on_clip: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Encode one shard, or find it done; returns its record.

    Raises:
        InputError: if the shard cannot be written (a full disk); nothing half-written stays behind.
    """
    done = job.finished()
    if done is not None:
        return done
    encoder = _encoder(job.settings)
    quarantine = Quarantine(max_rate=1.0)
    try:
        with LatentShardWriter(job.target) as writer:
            for clip in job.clips(quarantine):
                try:
                    writer.add(*encoder.encode(clip))
                except DamagedSample as damage:
                    quarantine.add(clip.key, str(damage), str(job.source))
                on_clip()
        return shard_record(job.target, writer, job.recipe, quarantine.rows)
    except OSError as error:
        raise InputError(f"cannot write {job.target}: {error.strerror or error}; free some space or choose another "
                         f"root=, then run stage=encode again: finished shards are kept") from error


def begin_worker(number: Synchronized[int]) -> None:
    """In a worker process: one thread, so that processes do not fight for cores, and the next GPU in turn."""
    end_with_parent()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with number.get_lock():
        mine, number.value = number.value, number.value + 1
    if torch.cuda.is_available():
        torch.cuda.set_device(mine % torch.cuda.device_count())


@lru_cache(maxsize=1)
def _encoder(settings: EncodeSettings) -> ClipEncoder:
    from streamchar.codecs.store import load_codec

    video, audio = (load_codec(settings.codecs / kind) for kind in ("video", "audio"))
    for codec in (video, audio):
        if isinstance(codec, torch.nn.Module):
            codec.to(settings.device)
    return ClipEncoder(video, audio, settings.clock, settings.size, list(settings.offsets), settings.dtype,
                       settings.device)
