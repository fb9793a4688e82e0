"""What an item borrows from elsewhere: reference, sink and voice anchor from clips of the same look or speaker."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from datamodules.config import DataConfig
from datamodules.latent_clip import LatentClip
from datamodules.latent_shards import LatentStore
from streamchar.clock import ChunkClock

TRIES = 8


class Partners:
    """Chooses partner clips and cuts from them; every choice is drawn from the item's own random numbers.

    ``in_shard``: partners lie in the clip's own shard. In a set that is too large to be shuffled as a whole an item
    would else read shards from anywhere in it.
    """

    def __init__(self, store: LatentStore, clock: ChunkClock, cfg: DataConfig, in_shard: bool = False) -> None:
        self.store, self.clock, self.cfg, self.in_shard = store, clock, cfg, in_shard

    def phase(self, rng: np.random.Generator) -> int:
        """A phase offset's number; only the first where chunks stay on the grid."""
        return 0 if self.cfg.chunk_starts == "grid" else int(rng.integers(len(self.store.index.offsets)))

    def other(self, clip: LatentClip, group: str, rng: np.random.Generator,
              accept: Callable[[LatentClip], bool] | None = None) -> LatentClip | None:
        """Another usable clip of the same ``group`` (``speaker`` or ``look``), or None where there is none."""
        numbers = self.store.members(group, clip, self.in_shard)
        for _ in range(TRIES if len(numbers) > 1 else 0):
            found = self.store.clips[numbers.item(rng.integers(len(numbers)))]
            fits = found.number != clip.number and (accept is None or accept(found))
            if fits and self.store.usable(found):
                return found
        return None

    def reference(self, clip: LatentClip, rng: np.random.Generator) -> np.ndarray:
        """A one-frame latent (C, 1, h, w) of the clip's look: the first latent of a chunk codes a single frame."""
        source = clip
        if rng.random() < self.cfg.ref_other_p:
            source = self.other(clip, "look", rng, _has_video) or clip
        phase = self.phase(rng)
        video = source.video(phase)
        return video[int(rng.integers(source.facts(self.clock).real_chunks[phase])), :, :1]

    def sink(self, clip: LatentClip, phase: int, size: int, rng: np.random.Generator) -> np.ndarray:
        """The first ``size`` latents (C, Ts, h, w) of the clip's own first chunk, or of another clip of the look."""
        if rng.random() < self.cfg.sink_other_p:
            source = self.other(clip, "look", rng, _has_video)
            if source is not None:
                return source.video(self.phase(rng))[0, :, :size]
        return clip.video(phase)[0, :, :size]

    def anchor(self, clip: LatentClip, size: int, rng: np.random.Generator,
               avoid: tuple[float, float] | None) -> np.ndarray:
        """Up to ``size`` latents (T, Ca) of the speaker's voice, newest last; may be empty.

        From another utterance where the speaker has one; else from this clip, outside the seconds ``avoid``
        (None: only another utterance will do, as when the clip itself is what shall be said).
        """
        if rng.random() < self.cfg.anchor_drop_p:
            size = 0
        elif rng.random() < self.cfg.anchor_short_p:
            size = int(rng.integers(size + 1))
        source = self.other(clip, "speaker", rng)
        if source is not None:
            return self._voice(source, size, source.facts(self.clock).speech, rng)
        if avoid is None:
            return clip.audio(0)[:0]
        before, after = (0.0, avoid[0]), (avoid[1], clip.record.seconds)
        span = before if before[1] - before[0] >= after[1] - after[0] else after
        return self._voice(clip, size, span, rng)

    def _voice(self, clip: LatentClip, size: int, span: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
        """At most ``size`` latents inside ``span`` (seconds), half of the time its very end, as a prompt is cut."""
        begin = max(math.ceil(span[0] * self.clock.audio_rate), 0)
        end = min(int(span[1] * self.clock.audio_rate), clip.facts(self.clock).real_latents)
        size = max(min(size, end - begin), 0)
        if rng.random() < 0.5 and end - size > begin:
            end = int(rng.integers(begin + size, end + 1))
        return clip.audio(0)[end - size:end]


def _has_video(clip: LatentClip) -> bool:
    return clip.has_video
