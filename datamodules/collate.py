"""From composed items to the typed batch: padding, times, weights.

Legend: B batch, C channels; Tv Tm Ts video latents of chunk, motion, sink; Ta Tp Th audio latents of chunk, past,
history.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.compose import ChunkItem
from datamodules.stacking import Stacking, flags, numbers, positions, stacked
from streamchar.clock import ChunkClock
from streamchar.transcript import pack_text
from streamchar.types import ChunkBatch, Conditions, Latents
from streamchar.window import WindowConfig

_COLUMNS = attrgetter("place", "position", "group", "text", "pointer", "audio", "anchor", "recent",
                      "video", "ref", "motion", "sink", "past")


class _Times(NamedTuple):
    """Float32 rows of a chunk number: seconds of history (Th,) and chunk (Ta,), weights of its latents (Ta,)."""

    history: NDArray[np.float32]
    audio: NDArray[np.float32]
    weight: NDArray[np.float32]


class ChunkCollate:
    """Chunk items -> :class:`ChunkBatch`.

    Args:
        clock, window: of the run.
        audio_channels: Ca.
        video: (C, Tv, h, w) of a chunk, or None where no item has pictures (then video fields are (B, 1, T, 1, 1)).
        width: ids per text unit.
    """

    def __init__(self, clock: ChunkClock, window: WindowConfig, audio_channels: int,
                 video: Sequence[int] | None, width: int) -> None:
        self.clock, self.window, self.audio_channels, self.width = clock, window, audio_channels, width
        self.video = tuple(video) if video else (1, clock.video_latents, 1, 1)
        self.stacking = Stacking()
        self._times: dict[int, _Times] = {}

    def group(self, latents: int) -> tuple[int, ...]:
        """Shape (C, latents, h, w) of a video group."""
        return (self.video[0], latents, *self.video[2:])

    def __call__(self, items: Sequence[ChunkItem]) -> ChunkBatch:
        w, clock, stack = self.window, self.clock, self.stacking.stack
        (places, at, groups, texts, pointers, audios, anchors, recents,
         *optional) = zip(*map(_COLUMNS, items), strict=True)
        videos, refs, motions, sinks, pasts = optional
        times = [self._times_of(place.chunk) for place in places]
        weights = [t.weight if item.emphasis is None else t.weight * item.emphasis
                   for t, item in zip(times, items, strict=True)]
        has_video, has_ref, has_motion, has_sink, has_past, has_text = flags(
            *([a is not None for a in group] for group in optional), [True] * len(items))
        pointer, cursor = numbers(pointers, [text.cursor for text in texts])
        history, history_mask = self.stacking.right_align(
            [(w.anchor_latents(clock), anchors), (w.recent_latents(clock), recents)], self.audio_channels)
        conditions = Conditions(
            ref=stack(refs, self.group(1)), has_ref=has_ref,
            motion=stack(motions, self.group(w.motion_latents)), has_motion=has_motion,
            sink=stack(sinks, self.group(w.sink_latents)), has_sink=has_sink,
            past_audio=stack(pasts, (w.past_latents(clock), self.audio_channels)), has_past=has_past,
            spoken=pack_text([text.spoken for text in texts], w.max_spoken, self.width, "right"),
            todo=pack_text([text.todo for text in texts], w.max_todo, self.width, "left"),
            has_text=has_text, cursor=cursor, history=history, history_mask=history_mask,
            history_time=stacked([t.history for t in times]),
            audio_time=stacked([t.audio for t in times]))
        return ChunkBatch(
            conditions=conditions,
            target=Latents(stack(videos, self.video), stack(audios, audios[0].shape)),
            audio_weight=stacked(weights),
            has_video=has_video, pointer=pointer, index=positions(at),
            keys=[place.clip.record.key for place in places], groups=[group for group in groups if group])

    def _times_of(self, k: int) -> _Times:
        """Of chunk number ``k``, worked out once."""
        found = self._times.get(k)
        if found is None:
            owned = self.clock.audio_owned(k)
            weight = [1.0] * owned + [0.0] * (self.clock.audio_latents - owned)
            rows = self.window.history_time(self.clock, k), self.window.audio_time(self.clock, k), weight
            found = self._times[k] = _Times(*(np.array(row, np.float32) for row in rows))
        return found
