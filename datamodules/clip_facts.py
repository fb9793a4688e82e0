"""What items ask of a clip again and again, worked out once: a pure function of its record and the clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from datamodules.latent_format import ClipRecord
from streamchar.clock import ChunkClock
from streamchar.transcript import Transcript, Word


@dataclass(slots=True)
class ClipFacts:
    """Lists are by phase.

    Attributes:
        origins: second of the clip at which the phase starts.
        words: the clip's words audible from there on.
        spoken: chunks that start before the last word's end; at least one more is always stored.
        inner: chunks after the first that start before the last word's end; where no phase has any, 1 each.
        real_chunks: chunks that start inside the clip's real length (their first frame is a real one), at least 1.
        real_latents: audio latents of phase 0 inside the real length.
        speech: seconds of the first word's start and the last one's end; the whole clip where there is no word.
        transcripts: of ``words`` by phase, as far as they were needed.
    """

    origins: list[float]
    words: list[list[Word]]
    spoken: list[int]
    inner: list[int]
    real_chunks: list[int]
    real_latents: int
    speech: tuple[float, float]
    transcripts: dict[int, Transcript] = field(default_factory=dict)

    @classmethod
    def of(cls, record: ClipRecord, latents: int, clock: ChunkClock) -> ClipFacts:
        """``latents``: audio latents stored for phase 0."""
        chunk_s, frames, timed = float(clock.chunk_seconds), record.seconds * clock.fps, record.timed
        origins = [p.offset / clock.fps for p in record.phases]
        spoken = [max(math.ceil((record.speech_end - o) / chunk_s - 1e-9), 0) for o in origins]
        real = [math.ceil((frames - p.offset) / clock.chunk_frames) for p in record.phases]
        spoken = [min(s, p.chunks - 1) for s, p in zip(spoken, record.phases, strict=True)]
        inner = [max(s - 1, 0) for s in spoken]  # 1 where all words are over would be a quiet chunk, as often as a full
        return cls(origins, [audible(timed, o) for o in origins], spoken, inner if any(inner) else [1] * len(inner),
                   [max(1, min(r, p.chunks)) for r, p in zip(real, record.phases, strict=True)],
                   min(int(record.seconds * clock.audio_rate), latents),
                   (timed[0].start, timed[-1].end) if timed else (0.0, record.seconds))


def audible(words: Sequence[Word], since: float) -> list[Word]:
    """The words that are heard at or after ``since`` (seconds); one cut there keeps its later part."""
    return [w if w.start >= since else Word(w.text, since, w.end) for w in words if w.end > since]
