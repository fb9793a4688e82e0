"""From composed items to the typed batch: padding, times, weights; the one conversion to float32.

Legend: B batch, C channels; Tv Tm Ts video latents of chunk, motion, sink; Ta Tp Th audio latents of chunk, past,
history.
"""

from __future__ import annotations

import math
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

SMALL_ROW = 1 << 15
"""Values up to which rows are gathered before they are converted."""


def stack(arrays: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> Tensor:
    """Stack to (B, *shape) float32; None becomes zeros.

    Large rows are copied once, which converts. Small ones are gathered as they are and converted together: a call per
    row would cost more than its bytes.
    """
    if math.prod(shape) <= SMALL_ROW and any(a is not None for a in arrays):
        return torch.from_numpy(_gathered(arrays, shape)).float()
    out = torch.empty(len(arrays), *shape)
    for row, array in zip(out.unbind(), arrays, strict=True):
        if array is None:
            row.zero_()
        else:
            row.copy_(torch.from_numpy(array))
    return out


def _gathered(arrays: Sequence[np.ndarray | None], shape: tuple[int, ...]) -> np.ndarray:
    out = np.empty((len(arrays), *shape), next(a.dtype for a in arrays if a is not None))
    for row, array in zip(out, arrays, strict=True):
        row[...] = 0 if array is None else array
    return out


def right_align(groups: Sequence[tuple[int, Sequence[np.ndarray]]], channels: int) -> tuple[Tensor, Tensor]:
    """Sounds (T, Ca), each group with its slots -> (B, all slots, Ca) and the mask (B, all slots) of what is real.

    The groups lie one after the other, in each the newest latent last.
    """
    rows, slots = len(groups[0][1]), sum(size for size, _ in groups)
    out = np.zeros((rows, slots, channels), groups[0][1][0].dtype)
    mask = np.zeros((rows, slots), bool)
    end = 0
    for size, arrays in groups:
        end += size
        for row, real, array in zip(out, mask, arrays, strict=True):
            row[end - len(array):end] = array
            real[end - len(array):end] = True
    return torch.from_numpy(out).float(), torch.from_numpy(mask)


def present(arrays: Sequence[np.ndarray | None]) -> Tensor:
    """(B,) bool: which are there."""
    return torch.from_numpy(np.array([a is not None for a in arrays]))


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
        history, history_mask = right_align([(w.anchor_latents(clock), [i.anchor for i in items]),
                                             (w.recent_latents(clock), [i.recent for i in items])], self.audio_channels)
        return Conditions(
            ref=stack(refs, self.group(1)), has_ref=present(refs),
            motion=stack(motions, self.group(w.motion_latents)), has_motion=present(motions),
            sink=stack(sinks, self.group(w.sink_latents)), has_sink=present(sinks),
            past_audio=stack(pasts, (w.past_latents(clock), self.audio_channels)), has_past=present(pasts),
            spoken=pack_text([i.text.spoken for i in items], w.max_spoken, self.width, "right"),
            todo=pack_text([i.text.todo for i in items], w.max_todo, self.width, "left"),
            has_text=torch.ones(len(items), dtype=torch.bool),
            cursor=torch.tensor([i.text.cursor for i in items], dtype=torch.float32),
            history=history, history_mask=history_mask,
            history_time=torch.stack([t[0] for t in times]), audio_time=torch.stack([t[1] for t in times]))

    def _times_of(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """History times, audio times and audio weights of chunk number ``k``."""
        if k not in self._times:
            owned = self.clock.audio_owned(k)
            weights = [1.0] * owned + [0.0] * (self.clock.audio_latents - owned)
            rows = (self.window.history_time(self.clock, k), self.window.audio_time(self.clock, k), weights)
            self._times[k] = torch.tensor(rows[0]), torch.tensor(rows[1]), torch.tensor(rows[2])
        return self._times[k]
