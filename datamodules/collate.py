"""From composed items to the typed batch: padding, times, weights.

Legend: B batch, C channels; Tv Tm Ts video latents of chunk, motion, sink; Ta Tp Th audio latents of chunk, past,
history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datamodules.compose import ChunkItem
from datamodules.stacking import Stacking, flags, numbers, positions
from streamchar.clock import ChunkClock
from streamchar.transcript import pack_text
from streamchar.types import ChunkBatch, Conditions, Latents
from streamchar.window import WindowConfig


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
        times = [self._times_of(i.place.chunk) for i in items]
        videos, refs = [i.video for i in items], [i.ref for i in items]
        motions, sinks, pasts = [i.motion for i in items], [i.sink for i in items], [i.past for i in items]
        has_video, has_ref, has_motion, has_sink, has_past, has_text = flags(
            *([a is not None for a in group] for group in (videos, refs, motions, sinks, pasts)), [True] * len(items))
        pointer, cursor = numbers([i.pointer for i in items], [i.text.cursor for i in items])
        history, history_mask = self.stacking.right_align(
            [(w.anchor_latents(clock), [i.anchor for i in items]),
             (w.recent_latents(clock), [i.recent for i in items])], self.audio_channels)
        conditions = Conditions(
            ref=stack(refs, self.group(1)), has_ref=has_ref,
            motion=stack(motions, self.group(w.motion_latents)), has_motion=has_motion,
            sink=stack(sinks, self.group(w.sink_latents)), has_sink=has_sink,
            past_audio=stack(pasts, (w.past_latents(clock), self.audio_channels)), has_past=has_past,
            spoken=pack_text([i.text.spoken for i in items], w.max_spoken, self.width, "right"),
            todo=pack_text([i.text.todo for i in items], w.max_todo, self.width, "left"),
            has_text=has_text, cursor=cursor, history=history, history_mask=history_mask,
            history_time=stack([t.history for t in times], times[0].history.shape),
            audio_time=stack([t.audio for t in times], times[0].audio.shape))
        return ChunkBatch(
            conditions=conditions,
            target=Latents(stack(videos, self.video), stack([i.audio for i in items], items[0].audio.shape)),
            audio_weight=stack([t.weight for t in times], times[0].weight.shape),
            has_video=has_video, pointer=pointer, index=positions([i.position for i in items]),
            keys=[i.place.clip.record.key for i in items], groups=[i.group for i in items if i.group])

    def _times_of(self, k: int) -> _Times:
        """Of chunk number ``k``, worked out once."""
        found = self._times.get(k)
        if found is None:
            owned = self.clock.audio_owned(k)
            weight = [1.0] * owned + [0.0] * (self.clock.audio_latents - owned)
            rows = self.window.history_time(self.clock, k), self.window.audio_time(self.clock, k), weight
            found = self._times[k] = _Times(*(np.array(row, np.float32) for row in rows))
        return found
