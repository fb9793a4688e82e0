"""A decoded clip becomes latents at every phase offset (design, section 3: independent chunks, one clock)."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.clip import Clip
from datamodules.conform import extend_frames, extend_wave, fit_frames, fit_rate, fit_wave
from datamodules.latent_format import ClipRecord, PhaseRecord
from datamodules.quarantine import DamagedSample
from streamchar.clock import ChunkClock
from streamchar.codecs.no_pictures import NoPictures
from streamchar.codecs.protocol import AudioCodec, VideoCodec

CHUNKS_AT_ONCE = 16


def phase_offsets(clock: ChunkClock, phases: int) -> list[int]:
    """First frames of the phase offsets: ``phases`` of them, evenly inside one chunk."""
    return sorted({p * clock.chunk_frames // phases for p in range(phases)})


class ClipEncoder:
    """Encodes clips with a run's codecs.

    Args:
        video_codec, audio_codec: of the run; the clip is resampled to the clock's rates.
        clock: the run's grid.
        size: picture side in pixels.
        offsets: first frames of the phase offsets.
        dtype: numpy type of the stored latents.
        device: where the codecs compute.
    """

    def __init__(self, video_codec: VideoCodec, audio_codec: AudioCodec, clock: ChunkClock, size: int,
                 offsets: list[int], dtype: str = "float16", device: str | torch.device = "cpu") -> None:
        self.video_codec, self.audio_codec, self.clock = video_codec, audio_codec, clock
        self.size, self.offsets, self.dtype, self.device = size, offsets, np.dtype(dtype), torch.device(device)

    @torch.no_grad()
    def encode(self, clip: Clip) -> tuple[ClipRecord, dict[str, np.ndarray]]:
        """Record and tensors of a clip.

        Raises:
            DamagedSample: if it is too short, or a latent is not finite.
        """
        unseen = clip.frames is None or isinstance(self.video_codec, NoPictures)
        frames = None if unseen else conform_frames(clip, self.clock, self.size)
        wave = fit_wave(clip.wave, clip.sample_rate, self.clock.sample_rate)
        seconds = len(frames) / self.clock.fps if frames is not None else len(wave) / self.clock.sample_rate
        if seconds * self.clock.audio_rate < 2:
            raise DamagedSample(f"only {seconds:.3f} s long")
        words: list[dict[str, Any]] = [{"w": w.text, "start": w.start, "end": min(w.end, seconds)}
                                       for w in clip.words if w.start < seconds]
        quiet_from = float(words[-1]["end"]) if words else 0.0
        tensors: dict[str, np.ndarray] = {}
        phases = []
        for number, offset in enumerate(self.offsets):
            chunks = max(math.ceil((seconds * self.clock.fps - offset) / self.clock.chunk_frames) + 1, 2)
            audio = self._audio(wave, offset, chunks, quiet_from, zlib.crc32(clip.key.encode()))
            tensors[f"audio.{number}"] = self._stored(audio, clip.key)
            if frames is not None:
                tensors[f"video.{number}"] = self._stored(self._video(frames, offset, chunks, quiet_from), clip.key)
            phases.append(PhaseRecord(offset, chunks, len(audio)))
        record = ClipRecord(clip.key, clip.speaker, clip.look, clip.text, words, seconds, frames is not None, phases,
                            clip.shard, clip.meta)
        return record, tensors

    def _audio(self, wave: Tensor, offset: int, chunks: int, quiet_from: float, seed: int) -> Tensor:
        """(latents, Ca) from an offset on, long enough for the surplus latent of the last chunk too."""
        clock = self.clock
        begin = round(offset * clock.sample_rate / clock.fps)
        latents = clock.audio_start(chunks - 1) + clock.audio_latents
        end = begin + clock.sample_at(latents) + self.audio_codec.lookahead + clock.sample_rate // 10
        extended = extend_wave(wave, quiet_from, clock.sample_rate, end, seed)[begin:]
        return self.audio_codec.encode(extended[None].to(self.device))[0, :latents].float().cpu()

    def _video(self, frames: Tensor, offset: int, chunks: int, quiet_from: float) -> Tensor:
        """(chunks, C, Tv, h, w): consecutive independent chunks from an offset on."""
        size = self.clock.chunk_frames
        extended = extend_frames(frames, quiet_from, self.clock.fps, offset + chunks * size)[offset:]
        groups = extended.reshape(chunks, size, *frames.shape[1:])
        return torch.cat([self.video_codec.encode(g.to(self.device).float() / 255).float().cpu()
                          for g in groups.split(CHUNKS_AT_ONCE)])

    def _stored(self, latents: Tensor, key: str) -> np.ndarray:
        stored = latents.numpy().astype(self.dtype)
        if not np.isfinite(stored).all():
            raise DamagedSample(f"latents of {key} are not finite as {self.dtype}; "
                                f"check the codec, or use data.latent_dtype=float32")
        return stored


def conform_frames(clip: Clip, clock: ChunkClock, size: int) -> Tensor:
    """The clip's pictures (F, 3, size, size) uint8 at the clock's frame rate."""
    assert clip.frames is not None
    return fit_frames(fit_rate(clip.frames, clip.fps, clock.fps), size)
