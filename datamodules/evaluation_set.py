"""Held-out streams with their truth: the clip's own text from its start, and what was really said and shown."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.collate import ChunkCollate
from datamodules.compose import ItemComposer
from datamodules.config import DataConfig
from datamodules.latent_clip import LatentClip
from datamodules.latent_shards import LatentStore
from datamodules.order import rng_at
from datamodules.rollout_items import RolloutCollate, RolloutItem
from streamchar.clock import ChunkClock
from streamchar.errors import DataError
from streamchar.transcript import TextUnits, Word
from streamchar.types import RolloutBatch
from streamchar.window import WindowConfig

EVALUATION_SEED = 104729


@dataclass(frozen=True)
class Truth:
    """A held-out clip: what is said and when (seconds), by whom, its stored JSON, and the tar that holds the original.

    ``video`` (chunks, C, Tv, h, w) and ``audio`` (T, Ca) are its own latents from its start, within its real length
    (the last chunk may run into the quiet extension): decoded, they give the codecs' floor without the shards.
    """

    key: str
    text: str
    words: list[Word]
    seconds: float
    speaker: str
    look: str
    shard: str
    meta: dict[str, Any]
    video: Tensor
    audio: Tensor


class EvaluationSet:
    """Up to ``count`` held-out clips, spread over the looks, as fresh streams.

    The voice anchor comes from another utterance of the speaker (empty where there is none), the reference from
    another clip of the look where there is one.

    Args:
        store: of ``encode/latents/val``.
        clock, window, units: of the run.
        count: clips at most.
        seed: of the choices.

    Raises:
        DataError: if no held-out clip has pictures and words.
    """

    def __init__(self, store: LatentStore, clock: ChunkClock, window: WindowConfig, units: TextUnits, count: int,
                 seed: int = 0) -> None:
        self.store, self.clock, self.window = store, clock, window
        cfg = DataConfig(anchor_drop_p=0.0, anchor_short_p=0.0, ref_other_p=1.0, real_start_p=0.0)
        self._items = ItemComposer(store, clock, window, units, cfg, seed + EVALUATION_SEED)
        self._collate = RolloutCollate(ChunkCollate(clock, window, store.index.audio_channels, store.index.video,
                                                    units.width))
        self.clips = spread([c for c in store.clips if c.has_video and c.record.timed and store.usable(c)],
                            count)
        if not self.clips:
            raise DataError(f"{store.folder} holds no clip with pictures and words; evaluation needs some: give "
                            f"data.val_shards and run stage=encode again")

    def __len__(self) -> int:
        return len(self.clips)

    def batch(self, first: int = 0, count: int | None = None) -> RolloutBatch:
        """Streams ``first`` .. ``first + count``; ``words`` are the true transcripts, ``index`` their numbers."""
        last = len(self) if count is None else min(first + count, len(self))
        return self._collate([self._item(i) for i in range(first, last)])

    def truth(self, number: int) -> Truth:
        """What stream ``number`` really said and showed."""
        clip = self.clips[number]
        r = clip.record
        chunks = min(int(np.ceil(r.seconds * self.clock.fps / self.clock.chunk_frames)), len(clip.video(0)))
        audio = clip.audio(0)[:int(r.seconds * self.clock.audio_rate)]
        return Truth(r.key, r.text, r.timed, r.seconds, r.speaker, r.look, r.source, r.meta,
                     torch.from_numpy(clip.video(0)[:chunks].astype(np.float32)),
                     torch.from_numpy(audio.astype(np.float32)))

    def _item(self, number: int) -> RolloutItem:
        clip, partners = self.clips[number], self._items.partners
        rng = rng_at(self._items.seed, number)
        ref = partners.reference(clip, rng)
        anchor = partners.anchor(clip, self.window.anchor_latents(self.clock), rng, None)
        return RolloutItem(clip.record.key, number, ref, anchor, [w.text for w in clip.record.timed])


def spread(clips: list[LatentClip], count: int) -> list[LatentClip]:
    """The first ``count`` clips when the looks take turns, so that few clips show many characters."""
    looks: dict[str, list[LatentClip]] = defaultdict(list)
    for clip in clips:
        looks[clip.record.look].append(clip)
    longest = max(map(len, looks.values()), default=0)
    turns = [[queue[i] for queue in looks.values() if i < len(queue)] for i in range(longest)]
    return [clip for turn in turns for clip in turn][:count]
