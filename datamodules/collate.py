"""From composed items to the typed batch: padding, times, weights; the one conversion to float32.

Legend: B batch, C channels; Tv Tm Ts video latents of chunk, motion, sink; Ta Tp Th audio latents of chunk, past,
history.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datamodules.compose import ChunkItem
from streamchar.clock import ChunkClock
from streamchar.transcript import pack_text
from streamchar.types import ChunkBatch, Conditions, Latents
from streamchar.window import WindowConfig

# Latents are read-only views into shards; torch warns that they could be written through its tensors, which none is.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


def stack(arrays: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> Tensor:
    """Stack to (B, *shape) float32 with one copy, which converts; None becomes zeros."""
    out = torch.empty(len(arrays), *shape)
    for i, array in enumerate(arrays):
        if array is None:
            out[i].zero_()
        else:
            out[i].copy_(torch.from_numpy(array))
    return out


def right_align(arrays: Sequence[np.ndarray], size: int, channels: int) -> tuple[Tensor, Tensor]:
    """Sounds (T, Ca) -> (B, size, Ca) with the newest latent last, and the mask (B, size) of what is real."""
    out = np.zeros((len(arrays), size, channels), dtype=arrays[0].dtype)
    mask = np.zeros((len(arrays), size), dtype=bool)
    for row, real, array in zip(out, mask, arrays, strict=True):
        if len(array):
            row[size - len(array):] = array
            real[size - len(array):] = True
    return torch.from_numpy(out).float(), torch.from_numpy(mask)


def present(arrays: Sequence[np.ndarray | None]) -> Tensor:
    """(B,) bool: which are there."""
    return torch.tensor([a is not None for a in arrays])


class ChunkCollate:
    """Chunk items -> :class:`ChunkBatch`.

    Args:
        clock, window: of the run.
        audio_channels: Ca.
        video: (C, Tv, h, w) of a chunk, or None where no clip has pictures (then video fields are (B, 1, T, 1, 1)).
        width: ids per text unit.
    """

    def __init__(self, clock: ChunkClock, window: WindowConfig, audio_channels: int,
                 video: Sequence[int] | None, width: int) -> None:
        self.clock, self.window, self.audio_channels, self.width = clock, window, audio_channels, width
        self.video = tuple(video) if video else (1, clock.video_latents, 1, 1)
        self._times: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def group(self, latents: int) -> tuple[int, ...]:
        """Shape (C, latents, h, w) of a video group."""
        return (self.video[0], latents, *self.video[2:])

    def __call__(self, items: Sequence[ChunkItem]) -> ChunkBatch:
        times = [self._times_of(i.place.chunk) for i in items]
        videos = [i.video for i in items]
        return ChunkBatch(
            conditions=self._conditions(items, times),
            target=Latents(stack(videos, self.video), stack([i.audio for i in items], items[0].audio.shape)),
            audio_weight=torch.stack([t[2] for t in times]),
            has_video=present(videos),
            pointer=torch.tensor([i.pointer for i in items], dtype=torch.float32),
            index=torch.tensor([i.position for i in items], dtype=torch.int64),
            keys=[i.place.clip.record.key for i in items],
            groups=[i.group for i in items if i.group])

    def _conditions(self, items: Sequence[ChunkItem], times: Sequence[tuple]) -> Conditions:
        w, clock = self.window, self.clock
        refs, motions = [i.ref for i in items], [i.motion for i in items]
        sinks, pasts = [i.sink for i in items], [i.past for i in items]
        anchor, anchor_mask = right_align([i.anchor for i in items], w.anchor_latents(clock), self.audio_channels)
        recent, recent_mask = right_align([i.recent for i in items], w.recent_latents(clock), self.audio_channels)
        return Conditions(
            ref=stack(refs, self.group(1)), has_ref=present(refs),
            motion=stack(motions, self.group(w.motion_latents)), has_motion=present(motions),
            sink=stack(sinks, self.group(w.sink_latents)), has_sink=present(sinks),
            past_audio=stack(pasts, (w.past_latents(clock), self.audio_channels)), has_past=present(pasts),
            spoken=pack_text([i.text.spoken for i in items], w.max_spoken, self.width, "right"),
            todo=pack_text([i.text.todo for i in items], w.max_todo, self.width, "left"),
            has_text=torch.ones(len(items), dtype=torch.bool),
            cursor=torch.tensor([i.text.cursor for i in items], dtype=torch.float32),
            history=torch.cat([anchor, recent], 1), history_mask=torch.cat([anchor_mask, recent_mask], 1),
            history_time=torch.stack([t[0] for t in times]), audio_time=torch.stack([t[1] for t in times]))

    def _times_of(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """History times, audio times and audio weights of chunk number ``k``."""
        if k not in self._times:
            owned = self.clock.audio_owned(k)
            weights = [1.0] * owned + [0.0] * (self.clock.audio_latents - owned)
            rows = (self.window.history_time(self.clock, k), self.window.audio_time(self.clock, k), weights)
            self._times[k] = torch.tensor(rows[0]), torch.tensor(rows[1]), torch.tensor(rows[2])
        return self._times[k]
