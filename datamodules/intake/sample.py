"""One finished clip: the files of a sample as shards hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.intake.config import IntakeConfig
from datamodules.intake.hearing import Heard
from datamodules.intake.loudness import clipped_share, loudness, normalise
from datamodules.intake.rejection import Rejected
from datamodules.intake.sources import Source
from datamodules.intake.transcripts import Token
from datamodules.media import encode_mp4, encode_wav
from streamchar.segmentation import join_written


@dataclass
class Sample:
    """``key``, its files by extension, its seconds and, with pictures, one of them (``still``) for people."""

    key: str
    files: dict[str, bytes]
    seconds: float
    still: NDArray[np.uint8] | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """The sample's JSON."""
        found: dict[str, Any] = json.loads(self.files["json"])
        return found


def checked_sound(wave: Tensor, cfg: IntakeConfig) -> tuple[Tensor, dict[str, float]]:
    """A clip's sound at its loudness, and what was measured.

    Raises:
        Rejected: ``too short`` or ``clipping``.
    """
    seconds = len(wave) / cfg.sample_rate
    if seconds < cfg.min_s:
        raise Rejected("too short", f"{seconds:.2f} s")
    share = clipped_share(wave)
    if share > cfg.max_clipped:
        raise Rejected("clipping", f"{share:.2%} of the samples")
    before = loudness(wave, cfg.sample_rate)
    wave, gain = normalise(wave, cfg.sample_rate, cfg.loudness)
    return wave, {"lufs": round(max(before + gain, -99.0), 1), "gain_db": round(gain, 1), "clipped": round(share, 5)}


def recording_of(clip: str) -> str:
    """The key of the recording that a clip (its key) was cut from."""
    return clip.rpartition("-")[0]


def make_sample(source: Source, number: int, heard: Heard, words: Sequence[Token], wave: Tensor, cfg: IntakeConfig,
                frames: NDArray[np.uint8] | None, more: dict[str, Any]) -> Sample:
    """Encode a clip: ``KEY.wav``, ``KEY.json`` and, with pictures (F, size, size, 3), ``KEY.mp4``.

    Args:
        words: with times from the clip's start.
        more: further entries of the JSON: where the clip lies in its source, the crop, what was measured.
    """
    key = f"{source.key}-{number:04d}"
    seconds = len(frames) / cfg.fps if frames is not None else len(wave) / cfg.sample_rate
    meta: dict[str, Any] = {
        "key": key, "speaker": source.speaker, "look": source.speaker, "text": join_written(w.text for w in words),
        "words": [{"w": w.text, "start": round(w.start, 3), "end": round(w.end, 3)} for w in words],
        "sample_rate": cfg.sample_rate, "seconds": round(seconds, 3), "transcript": heard.written, **more}
    files = {"wav": encode_wav(wave.numpy(), cfg.sample_rate)}
    if frames is not None:
        meta |= {"fps": int(cfg.fps) if float(cfg.fps).is_integer() else cfg.fps, "frames": len(frames),
                 "size": cfg.size}
        files = {"mp4": encode_mp4(frames, cfg.fps, cfg.crf), **files}
    files["json"] = json.dumps(meta).encode()
    return Sample(key, files, seconds, None if frames is None else frames[len(frames) // 2].copy())
