"""Held-out clips with their own sound and word times, as streams to begin: what the pointer is watched on."""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from datamodules.collate import ChunkCollate
from datamodules.compose import ItemComposer
from datamodules.evaluation_set import spread
from datamodules.order import rng_at
from datamodules.rollout_items import RolloutCollate, RolloutItem
from streamchar.evaluation.pointer_map import SpokenClip

LOOKED_AT = 32
"""Clips that say something among which different looks are sought."""


def spoken_clips(items: ItemComposer, shapes: ChunkCollate, count: int) -> list[SpokenClip]:
    """Up to ``count`` clips that say something, of different looks where there are some; no pictures are read."""
    # Of the first ones alone: a large set is not read through for a picture.
    speaking = (c for c in items.store.clips if c.record.timed and items.store.usable(c))
    clips = spread(list(islice(speaking, LOOKED_AT)), count)
    size, collate, out = items.window.anchor_latents(items.clock), RolloutCollate(shapes), []
    for i, clip in enumerate(clips):
        anchor = items.partners.anchor(clip, size, rng_at(items.seed, i), None)
        batch = collate([RolloutItem(clip.record.key, i, None, anchor, [w.text for w in clip.record.timed])])
        sound = clip.audio(0)[:clip.facts(items.clock).real_latents].astype(np.float32)
        out.append(SpokenClip(batch, torch.from_numpy(sound), clip.record.timed, items.clock, items.window,
                              items.units))
    return out
