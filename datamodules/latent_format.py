"""The stored form of an encoded clip: a JSON record and a safetensors blob, and how both lie in a tar.

In ``latents-NAME.tar`` every clip has two members, ``KEY.json`` (:class:`ClipRecord`) and ``KEY.safetensors`` with,
for every phase offset p, ``video.p`` (chunks, C, Tv, h, w): consecutive independent chunks from frame ``offset``, and
``audio.p`` (latents, Ca): one continuous encoding of the sound from the same offset. Both run past the clip's end into
an extension of quiet (the last picture kept, quiet sound), so that chunks after the end have targets. Clips without
pictures have ``audio.p`` only. ``shards.json`` beside the tars (:class:`LatentIndex`) lists files, geometry and the
codecs' fingerprints; where ``base`` is set the tars lie elsewhere, for example behind a URL.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from streamchar.errors import DataError
from streamchar.transcript import Word, spoken_words

FORMAT = "streamchar-latents-1"
INDEX_NAME = "shards.json"
DTYPES: dict[str, np.dtype] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8"),
                               "U8": np.dtype("u1"), "U32": np.dtype("<u4"), "U64": np.dtype("<u8"),
                               "I64": np.dtype("<i8")}


WORDS_OF = "words_of"
"""In a clip's ``meta``: the keys of the clips whose words it says."""


@dataclass
class PhaseRecord:
    """One phase offset of a clip: ``offset`` in frames (of the run's fps), chunks and audio latents stored."""

    offset: int
    chunks: int
    latents: int


@dataclass
class ClipRecord:
    """All about a clip but its latents. ``seconds`` is the real length, without the quiet extension."""

    key: str
    speaker: str
    look: str
    text: str
    words: list[dict[str, Any]]
    seconds: float
    has_video: bool
    phases: list[PhaseRecord]
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.phases = [p if isinstance(p, PhaseRecord) else PhaseRecord(**p) for p in self.phases]
        self.timed: list[Word] = spoken_words(self.words)

    @property
    def recorded(self) -> bool:
        """False for a clip made of others' words (``data.respoken``)."""
        return WORDS_OF not in self.meta

    @property
    def speech_end(self) -> float:
        """Seconds at which the last word ends; 0 in a clip without words."""
        return self.timed[-1].end if self.timed else 0.0

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ClipRecord:
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in json.loads(data).items() if k in known})


@dataclass
class LatentIndex:
    """``shards.json``. ``video`` is (C, Tv, h, w) of a chunk, None without pictures; ``shards``: files and sums.

    ``base``: folder or URL of the tars, empty where they lie beside this file.
    """

    video_codec: str
    audio_codec: str
    fps: float
    chunk_frames: int
    audio_rate: float
    sample_rate: int
    audio_channels: int
    video: list[int] | None
    offsets: list[int]
    size: int
    shards: list[dict[str, Any]] = field(default_factory=list)
    quarantined: list[dict[str, str]] = field(default_factory=list)
    format: str = FORMAT
    base: str = ""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, path: str) -> LatentIndex:
        try:
            value = json.loads(data)
            if value.get("format") != FORMAT:
                raise DataError(f"{path} is of format {value.get('format')!r}, this code reads {FORMAT!r}; "
                                f"run stage=encode again")
            return cls(**value)
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is damaged ({error}); run stage=encode again") from error


def tensor_places(blob: np.ndarray) -> dict[str, tuple[np.dtype, tuple[int, ...], int]]:
    """Where the tensors of a safetensors blob (uint8) lie: name -> (dtype, shape, first byte), nothing copied.

    Raises:
        DataError: if the header or its offsets do not fit the blob.
    """
    try:
        length = struct.unpack("<Q", blob[:8].tobytes())[0]
        header = json.loads(blob[8:8 + length].tobytes())
        header.pop("__metadata__", None)
        places = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
            if 8 + length + end > len(blob) or end - begin != dtype.itemsize * int(np.prod(shape)):
                raise DataError(f"tensor {name} does not fit its file; run stage=encode again")
            places[name] = (dtype, shape, 8 + length + begin)
        return places
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise DataError(f"no safetensors header ({error!r}); run stage=encode again") from error
