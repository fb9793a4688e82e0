"""One clock: every position is in seconds; chunk k starts at ``k * chunk_frames / fps`` (design, section 3).

Shape suffixes: none. Exact arithmetic uses :class:`fractions.Fraction`, so chunk 10,000 is as exact as chunk 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from streamchar.errors import InputError


@dataclass(frozen=True)
class ChunkClock:
    """The grid of chunks, video latents and audio latents.

    Args:
        fps: video frames per second.
        chunk_frames: frames of one chunk, ``1 + 4 n``.
        audio_rate: audio latents per second.
        sample_rate: sound samples per second.
        temporal_stride: frames per video latent after the first (4 in all our codecs).
        first_frames: frames of chunk 0 alone, fewer where a stream must be heard soon [ours]; 0: as all others.

    Raises:
        InputError: if ``chunk_frames`` or ``first_frames`` is not ``1 + temporal_stride * n``, the first chunk is
            longer than the others, or a rate is not positive.
    """

    fps: float
    chunk_frames: int
    audio_rate: float
    sample_rate: int
    temporal_stride: int = 4
    first_frames: int = 0

    def __post_init__(self) -> None:
        if min(self.fps, self.audio_rate, self.sample_rate) <= 0:
            raise InputError(f"rates must be positive, got fps={self.fps}, audio_rate={self.audio_rate}, "
                             f"sample_rate={self.sample_rate}")
        for name, frames in (("chunk_frames", self.chunk_frames), ("first_frames", self.frames(0))):
            if frames < 1 or (frames - 1) % self.temporal_stride:
                nearest = 1 + self.temporal_stride * (frames // self.temporal_stride)
                raise InputError(f"{name}={frames} is not 1 + {self.temporal_stride} n; use for example {nearest}")
        if self.first_frames > self.chunk_frames:
            raise InputError(f"first_frames={self.first_frames} is more than chunk_frames={self.chunk_frames}; the "
                             "first chunk may only be shorter")

    def frames(self, k: int) -> int:
        """Frames of chunk ``k``."""
        return self.first_frames if k == 0 and self.first_frames else self.chunk_frames

    def seconds(self, k: int) -> Fraction:
        """Playback time of chunk ``k``, exact."""
        return Fraction(self.frames(k)) / Fraction(self.fps).limit_denominator(1001 * 1000)

    def latents(self, k: int) -> int:
        """Video latents of chunk ``k``."""
        return 1 + (self.frames(k) - 1) // self.temporal_stride

    def carried(self, k: int) -> int:
        """Audio latents that chunk ``k`` carries, owned and surplus."""
        return ceil(self.seconds(k) * self._audio_rate)

    @property
    def _audio_rate(self) -> Fraction:
        return Fraction(self.audio_rate).limit_denominator(1_000_000)

    @property
    def chunk_seconds(self) -> Fraction:
        """Playback time of one chunk (after the first, where that is shorter), exact."""
        return self.seconds(1)

    @property
    def video_latents(self) -> int:
        """Latent frames per chunk: 1 + (chunk_frames - 1) / stride."""
        return self.latents(1)

    @property
    def audio_per_chunk(self) -> Fraction:
        """Audio latents per chunk, ``r`` of the design; may be fractional (34.375 at 33/24 s x 25 Hz)."""
        return self.chunk_seconds * self._audio_rate

    @property
    def audio_latents(self) -> int:
        """Audio latents that every chunk carries: ``ceil(r)``."""
        return ceil(self.audio_per_chunk)

    def chunk_start(self, k: int) -> Fraction:
        """Start of chunk ``k`` in seconds, exact."""
        return self.seconds(0) + (k - 1) * self.chunk_seconds if k else Fraction(0)

    def audio_start(self, k: int) -> int:
        """Index of chunk ``k``'s first audio latent: ``ceil(r k)`` where all chunks are equally long."""
        return ceil(self.chunk_start(k) * self._audio_rate)

    def audio_owned(self, k: int) -> int:
        """Latents that chunk ``k`` owns: ``ceil(r(k+1)) - ceil(rk)``; the rest of ``audio_latents`` is surplus."""
        return self.audio_start(k + 1) - self.audio_start(k)

    def audio_offset(self, k: int) -> float:
        """Seconds from chunk ``k``'s start to the start of its first audio latent, in [0, 1/audio_rate)."""
        return float(self.audio_start(k) / Fraction(self.audio_rate).limit_denominator(1_000_000) - self.chunk_start(k))

    def sample_at(self, latent: int) -> int:
        """First sound sample of audio latent ``latent``; floors, so that remainders are carried and never lost."""
        return int(latent * self.sample_rate / Fraction(self.audio_rate).limit_denominator(1_000_000))
