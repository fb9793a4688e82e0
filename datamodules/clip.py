"""One decoded clip: pictures, sound, words; and the checks that send a damaged sample to quarantine."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.quarantine import DamagedSample
from streamchar.transcript import Word, normalise_words, spoken_words

AUDIO_EXTENSIONS = ("wav", "flac", "mp3", "ogg")
MOST_ROOM = 1024
"""Pictures for which room is made on the word of a header, which may be damaged."""
LATEST_S = 5.0
"""Seconds after the pictures at which a sound track may begin; more is taken for damage."""


@dataclass
class Clip:
    """A sample, decoded.

    Attributes:
        key: its name, unique in the data set.
        frames: (F, 3, H, W) uint8 RGB, or None for a speech-only sample.
        wave: (S,) float32 in [-1, 1], mono; with pictures S = round(F / fps * sample_rate).
        sample_rate: Hz.
        fps: video frames per second (0 for speech only).
        words: spoken words with their seconds, silence marks dropped.
        meta: the sample's JSON as it is (text, speaker, look, mouth, ...).
        shard: the tar it came from.
    """

    key: str
    frames: Tensor | None
    wave: Tensor
    sample_rate: int
    fps: float
    words: list[Word]
    meta: dict[str, Any] = field(default_factory=dict)
    shard: str = ""

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.frames) / self.fps if self.frames is not None else len(self.wave) / self.sample_rate

    @property
    def text(self) -> str:
        """The sentence(s) spoken."""
        return str(self.meta.get("text", ""))

    @property
    def speaker(self) -> str:
        """Who speaks: same voice, same name."""
        return str(self.meta.get("speaker", "unknown"))

    @property
    def look(self) -> str:
        """Who is seen: the speaker where the shards do not say it."""
        return str(self.meta.get("look", self.speaker))


def decode_clip(key: str, files: Mapping[str, bytes], *, fps: float | None = None, sample_rate: int | None = None,
                shard: str = "", pictures: bool = True) -> Clip:
    """Decode one sample's files.

    Args:
        key: sample name.
        files: extension to bytes: ``json``, ``mp4`` and/or an audio file.
        fps: required frame rate, or None for any.
        sample_rate: Hz to resample the sound to, or None to keep its own.
        shard: where it came from.
        pictures: False decodes sound alone, which may then be a little longer or shorter than the pictures.

    Raises:
        DamagedSample: no or bad JSON, bad words, undecodable media, no sound, another frame rate.
    """
    meta = read_meta(files)
    words = checked_words(meta)
    frames, rate, wave, sound_rate = None, 0.0, None, 0
    if "mp4" in files:
        frames, rate, wave, sound_rate = _decode_media(files["mp4"], video=pictures, sample_rate=sample_rate)
        if pictures:
            _check_rate(rate, meta, fps)
    for extension in AUDIO_EXTENSIONS:
        if extension in files:
            _, _, wave, sound_rate = _decode_media(files[extension], video=False, sample_rate=sample_rate)
    if "mp4" not in files and not any(e in files for e in AUDIO_EXTENSIONS):
        raise DamagedSample(f"no media: files are {sorted(files)}, expected mp4 or one of {AUDIO_EXTENSIONS}")
    if wave is None or len(wave) == 0:
        raise DamagedSample("no sound: the mp4 has no audio stream and there is no wav beside it")
    if not torch.isfinite(wave).all():
        raise DamagedSample("sound holds NaN or infinite samples")
    if frames is not None:
        wave = _fit(wave, round(len(frames) * sound_rate / rate), sound_rate)
    return Clip(key, frames, wave, sound_rate, rate, words, meta, shard)


def read_meta(files: Mapping[str, bytes]) -> dict[str, Any]:
    """A sample's JSON.

    Raises:
        DamagedSample: none, or no object.
    """
    if "json" not in files:
        raise DamagedSample("no json")
    try:
        meta = json.loads(files["json"])
    except ValueError as error:
        raise DamagedSample(f"json unreadable: {error}") from error
    if not isinstance(meta, dict):
        raise DamagedSample("json is not an object")
    return meta


def checked_words(meta: Mapping[str, Any]) -> list[Word]:
    """The JSON's spoken words, in time order.

    Raises:
        DamagedSample: missing, non-finite, negative or reversed times, or a text without any word.
    """
    rows = meta.get("words")
    if not isinstance(rows, list):
        raise DamagedSample("words missing: expected a list of {w, start, end}")
    last = 0.0
    for row in rows:
        try:
            start, end, name = float(row["start"]), float(row["end"]), row["w"]
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedSample(f"word {row!r} is not {{w, start, end}}") from error
        if not (math.isfinite(start) and math.isfinite(end)):
            raise DamagedSample(f"word {name!r} has a time that is not finite")
        if start < last - 0.05 or end < start:
            raise DamagedSample(f"word {name!r} at {start}..{end} s is out of order")
        last = start
    words = spoken_words(rows)
    if not words and normalise_words(str(meta.get("text", ""))):
        raise DamagedSample("words empty although there is a text")
    return words


def _check_rate(rate: float, meta: Mapping[str, Any], wanted: float | None) -> None:
    said = meta.get("fps")
    if said is not None and not isinstance(said, (int, float)):
        raise DamagedSample(f"fps {said!r} in the json is no number")
    if said is not None and not abs(said - rate) <= 0.02 * rate:
        raise DamagedSample(f"wrong fps: the video runs at {rate:g}, its json says {said}")
    if wanted is not None and abs(wanted - rate) > 0.02 * wanted:
        raise DamagedSample(f"wrong fps: the video runs at {rate:g}, expected {wanted:g}")


def _decode_media(body: bytes, *, video: bool, sample_rate: int | None
                  ) -> tuple[Tensor | None, float, Tensor | None, int]:
    """(frames or None, fps, wave or None, its rate). Everything in one file, by PyAV on one thread."""
    import av

    frames, rate, wave, hz = None, Fraction(0), None, 0
    try:
        with av.open(io.BytesIO(body), "r") as box:
            sound = box.streams.audio[0] if box.streams.audio else None
            if video:
                if not box.streams.video:
                    raise DamagedSample("the mp4 has no video stream")
                stream = box.streams.video[0]
                stream.codec_context.thread_count = 1
                rate = stream.average_rate or Fraction(0)
                frames = _decode_pictures(box, stream)
                box.seek(0)
                if frames is None or not rate:
                    raise DamagedSample("the mp4 holds no picture")
            if sound is not None:
                wave, hz, begin = _decode_sound(box, sound, sample_rate)
                if box.streams.video:
                    wave = _from_first_picture(wave, begin - _begin(box.streams.video[0]), hz)
    except (av.FFmpegError, ValueError, OSError) as error:
        raise DamagedSample(f"media cannot be decoded: {error}") from error
    return frames, float(rate), wave, hz


def _decode_pictures(box: Any, stream: Any) -> Tensor | None:
    """(F, 3, H, W); None where there is none.

    Each picture is copied once, as soon as it is decoded (it is still in the processor's cache) and colour by colour
    (numpy would else write by threes).
    """
    frames, count = np.empty((0, 3, 0, 0), np.uint8), 0
    for frame in box.decode(stream):
        picture = frame.to_ndarray(format="rgb24")
        if not count:
            room = min(max(stream.frames, 1), MOST_ROOM)
            frames = np.empty((room, 3, *picture.shape[:2]), np.uint8)
        elif count == len(frames):  # the header says fewer, or nothing
            frames = np.concatenate([frames, np.empty_like(frames)])
        for colour in range(3):
            frames[count, colour] = picture[..., colour]
        count += 1
    return torch.from_numpy(frames[:count]) if count else None


def _decode_sound(box: Any, sound: Any, sample_rate: int | None) -> tuple[Tensor, int, float]:
    """Mono samples (S,), their rate, and the second of the file's time at which they begin."""
    import av

    hz = sample_rate or sound.codec_context.sample_rate
    decoded = list(box.decode(sound))
    begin = decoded[0].time if decoded and decoded[0].time is not None else _begin(sound)
    if not all(f.format.name in ("flt", "fltp") and f.layout.name == "mono" and f.sample_rate == hz for f in decoded):
        resampler = av.AudioResampler(format="flt", layout="mono", rate=hz)
        decoded = [out for frame in [*decoded, None] for out in resampler.resample(frame)]
    parts = [frame.to_ndarray().reshape(-1) for frame in decoded]
    wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)), hz, begin


def _begin(stream: Any) -> float:
    """The second of the file's time at which a track begins; 0 where it does not say."""
    return float((stream.start_time or 0) * (stream.time_base or 0))


def _from_first_picture(wave: Tensor, late: float, rate: int) -> Tensor:
    """The sound from the first picture on, for a track that begins ``late`` seconds after it (or before, < 0), as in
    clips cut out of others without coding them anew."""
    if late > LATEST_S:
        raise DamagedSample(f"the sound track begins {late:.2f} s after the pictures, at most {LATEST_S:g} s are "
                            "allowed")
    return torch.nn.functional.pad(wave, (max(round(late * rate), -len(wave)), 0))


def _fit(wave: Tensor, length: int, rate: int) -> Tensor:
    """Cut or zero-pad the sound to the pictures' length; more than half a second missing is damage."""
    if len(wave) < length - rate // 2:
        raise DamagedSample(f"sound is {len(wave) / rate:.2f} s long, the pictures {length / rate:.2f} s")
    return torch.nn.functional.pad(wave, (0, max(length - len(wave), 0)))[:length]
