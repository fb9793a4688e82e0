"""Reading latent shards: every clip's latents as views into memory-mapped tars, bad clips quarantined.

Nothing is copied until a batch is stacked; the operating system's page cache is shared by all workers and ranks, so a
small set lives in memory and a large one streams.
"""

from __future__ import annotations

import logging
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.latent_format import INDEX_NAME, ClipRecord, LatentIndex, tensor_places
from streamchar.clock import ChunkClock
from streamchar.errors import DataError

log = logging.getLogger(__name__)


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; float16 by its exponent bits, several times faster than np.isfinite."""
    if values.dtype == np.float16:
        return not bool(((values.view(np.uint16) & 0x7C00) == 0x7C00).any())
    return bool(np.isfinite(values).all())


class LatentClip:
    """One clip: its record, and its latents per phase as read-only views."""

    def __init__(self, record: ClipRecord, number: int, place: tuple[Path, int, int], maps: dict[Path, Any]) -> None:
        self.record, self.number = record, number
        self._path, self._begin, self._size = place
        self._maps = maps
        self._places: dict[str, Any] | None = None
        self._checked = False

    def video(self, phase: int) -> np.ndarray:
        """(chunks, C, Tv, h, w) of a phase."""
        return self._tensor(f"video.{phase}")

    def audio(self, phase: int) -> np.ndarray:
        """(latents, Ca) of a phase, from its offset on."""
        return self._tensor(f"audio.{phase}")

    def check(self) -> None:
        """Look at every value once per process.

        Raises:
            DataError: if a value is not finite, or the stored tensors are damaged.
        """
        if self._checked:
            return
        for name in self._located():
            if not all_finite(self._tensor(name)):
                raise DataError(f"clip {self.record.key} has NaN or infinite latents in {name}; run stage=encode again")
        self._checked = True

    def _located(self) -> dict[str, Any]:
        if self._places is None:
            self._places = tensor_places(self._blob())
        return self._places

    def _blob(self) -> np.ndarray:
        if self._path not in self._maps:
            self._maps[self._path] = np.memmap(self._path, dtype=np.uint8, mode="r")
        return self._maps[self._path][self._begin:self._begin + self._size]

    def _tensor(self, name: str) -> np.ndarray:
        try:
            dtype, shape, at = self._located()[name]
        except KeyError:
            raise DataError(f"clip {self.record.key} has no {name}; run stage=encode again") from None
        count = int(np.prod(shape))
        return np.frombuffer(self._blob(), dtype=dtype, count=count, offset=at).reshape(shape)


class LatentStore:
    """All clips of a folder of latent shards.

    Args:
        folder: with ``shards.json``.
        clock: of the run; must agree with the latents' rates.
        fingerprints: ``{"video": ..., "audio": ...}`` of the run's codecs; a missing or None entry is not checked.
        max_bad_share: share of clips that may be quarantined.

    Raises:
        DataError: if the folder or a shard is missing, empty, damaged beyond ``max_bad_share``, or made by other
            codecs or for another clock.
    """

    def __init__(self, folder: Path, clock: ChunkClock, fingerprints: dict[str, str | None] | None = None,
                 max_bad_share: float = 0.2) -> None:
        self.folder = Path(folder)
        self.max_bad_share = max_bad_share
        self.index = self._read_index()
        self._check_geometry(clock)
        self._check_fingerprints(fingerprints or {})
        self.quarantined: dict[str, str] = {}
        self._maps: dict[Path, Any] = {}
        self.clips: list[LatentClip] = []
        self.shards: list[list[int]] = []
        for shard in self.index.shards:
            self._open_shard(self.folder / shard["file"], int(shard["clips"]))
        if not self.clips:
            raise DataError(f"{self.folder} holds no usable clip; run stage=encode again (data.shards=...)")
        self.by_speaker = self._groups("speaker")
        self.by_look = self._groups("look")

    def __getstate__(self) -> dict[str, Any]:
        self._maps.clear()  # maps are opened again in the process that reads
        return self.__dict__

    def usable(self, clip: LatentClip) -> bool:
        """Check a clip's values; a bad one is quarantined (logged, counted) and never used.

        Raises:
            DataError: when more than ``max_bad_share`` of the clips are bad.
        """
        key = clip.record.key
        if key in self.quarantined:
            return False
        try:
            clip.check()
        except DataError as error:
            self._quarantine(key, str(error))
            return False
        return True

    def _quarantine(self, key: str, why: str) -> None:
        self.quarantined[key] = why
        log.warning("quarantined %s: %s", key, why)
        total = sum(int(s["clips"]) for s in self.index.shards)
        if len(self.quarantined) > self.max_bad_share * total:
            raise DataError(f"{len(self.quarantined)} of {total} clips in {self.folder} are unusable, more than "
                            f"data.max_bad_share={self.max_bad_share}; last: {why}")

    def _read_index(self) -> LatentIndex:
        path = self.folder / INDEX_NAME
        try:
            index = LatentIndex.from_json(path.read_bytes(), str(path))
        except OSError:
            raise DataError(f"no latents at {self.folder} ({INDEX_NAME} is missing); run stage=encode") from None
        if not index.shards:
            raise DataError(f"{path} lists no shards; run stage=encode again")
        return index

    def _check_geometry(self, clock: ChunkClock) -> None:
        for name in ("fps", "chunk_frames", "audio_rate", "sample_rate"):
            stored, wanted = getattr(self.index, name), getattr(clock, name)
            if abs(float(stored) - float(wanted)) > 1e-6:
                raise DataError(f"latents in {self.folder} were made for {name}={stored}, this run has {wanted}; "
                                f"use the same clock or run stage=encode again")

    def _check_fingerprints(self, wanted: dict[str, str | None]) -> None:
        for kind, stored in (("video", self.index.video_codec), ("audio", self.index.audio_codec)):
            if wanted.get(kind) and wanted[kind] != stored:
                raise DataError(f"latents in {self.folder} were made by the {kind} codec {stored[:12]}, this run's "
                                f"{kind} codec is {str(wanted[kind])[:12]}; use the codecs in encode/codecs or run "
                                f"stage=encode again")

    def _open_shard(self, path: Path, expected: int) -> None:
        if not path.exists():
            raise DataError(f"latent shard {path} is listed but missing; run stage=encode again")
        numbers: list[int] = []
        size = path.stat().st_size
        record = None
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.name.endswith(".json"):
                        source = tar.extractfile(member)
                        record = ClipRecord.from_json(source.read() if source else b"")
                    elif record is not None and member.name == f"{record.key}.safetensors":
                        if member.offset_data + member.size > size:
                            raise tarfile.ReadError("unexpected end of data")
                        clip = LatentClip(record, len(self.clips), (path, member.offset_data, member.size), self._maps)
                        self.clips.append(clip)
                        numbers.append(clip.number)
        except (tarfile.TarError, ValueError, TypeError, EOFError) as error:
            log.warning("%s is cut or damaged after %d of %d clips: %s", path, len(numbers), expected, error)
        self.shards.append(numbers)
        for lost in range(len(numbers), expected):
            self.quarantined[f"{path.name}#{lost}"] = "lost in a damaged shard"
        total = sum(int(s["clips"]) for s in self.index.shards)
        if len(self.quarantined) > self.max_bad_share * total:
            raise DataError(f"latent shard {path} is cut: {len(numbers)} of {expected} clips are readable; "
                            f"run stage=encode again")

    def _groups(self, name: str) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = defaultdict(list)
        for clip in self.clips:
            groups[getattr(clip.record, name)].append(clip.number)
        return dict(groups)
