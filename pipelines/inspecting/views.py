"""One training item made visible and audible: its latents decoded, its words with their seconds and text units."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.compose import ChunkItem, ItemComposer
from pipelines.evaluating.material import to_pictures
from streamchar.codecs.protocol import AudioCodec, VideoCodec

SPOKEN, TODO, OUTSIDE = "spoken", "todo", "outside"


@dataclass
class WordView:
    """A word: seconds relative to the chunk's start, its text units (first, end), and the part of the text it is in."""

    text: str
    start: float
    end: float
    units: tuple[int, int]
    part: str


@dataclass
class ItemView:
    """What a page shows of an item.

    frames (F, H, W, 3) uint8: motion, then the chunk (empty: an item of sound); ``motion_frames`` of them are motion.
    sound (S,): the same span; ``history`` (S,): the recent sound before the chunk, then the chunk's; ``history_s``
    seconds of it precede the chunk. anchor (S,): the voice prompt. ref (H, W, 3), sink (F, H, W, 3), or None.
    pointer, cursor: in units of the transcript, at the chunk's end and start.
    """

    position: int
    key: str
    role: str
    chunk_s: float
    frames: NDArray[np.uint8]
    motion_frames: int
    sound: NDArray[np.float32]
    history: NDArray[np.float32]
    history_s: float
    anchor: NDArray[np.float32]
    ref: NDArray[np.uint8] | None
    sink: NDArray[np.uint8] | None
    words: list[WordView]
    cursor: float
    pointer: float
    facts: dict[str, str] = field(default_factory=dict)


class ItemViewer:
    """Views of a composer's items.

    Args:
        items: composes them.
        video, audio: codecs of the latents.
    """

    def __init__(self, items: ItemComposer, video: VideoCodec, audio: AudioCodec) -> None:
        self.items, self.video, self.audio, self.clock = items, video, audio, items.clock

    @torch.no_grad()
    def view(self, position: int) -> ItemView:
        """The item at a position of the order."""
        item = self.items.item(position)
        place, clock = item.place, self.clock
        before = clock.sample_at(len(item.recent))
        history = self._sound(np.concatenate([item.recent, item.audio]))
        frames, motion = self._pictures(item)
        span = round(len(frames) / clock.fps * clock.sample_rate) if len(frames) else len(history)
        end = before + round(self.items.chunk_s * clock.sample_rate)
        begin = end - span
        sound = np.pad(history, (max(-begin, 0), 0))[max(begin, 0):max(begin, 0) + span]
        role = ("first chunk" if place.first else "chunk") + (", quiet" if place.quiet else "")
        record = place.clip.record
        return ItemView(
            position, record.key, role, self.items.chunk_s, frames, motion, sound, history[:end],
            before / clock.sample_rate, self._sound(item.anchor),
            None if item.ref is None else self._prefix(item.ref)[0],
            None if item.sink is None else self._prefix(item.sink),
            self._words(item), item.text.base + item.text.cursor, item.text.base + item.pointer,
            {"speaker": record.speaker, "look": record.look, "phase": str(place.phase),
             "chunk": str(place.chunk) if place.latent is None else "anywhere",
             "clip": f"{record.seconds:.2f} s", "starts at": f"{self.items.start(place):.2f} s",
             "history": f"{len(item.recent) / clock.audio_rate:.2f} s",
             "anchor": f"{len(item.anchor) / clock.audio_rate:.2f} s",
             "own past": "none" if item.past is None else f"{len(item.past) / clock.audio_rate:.2f} s"})

    def _pictures(self, item: ChunkItem) -> tuple[NDArray[np.uint8], int]:
        """Motion and chunk; motion is the end of a chunk, so the whole of that one is decoded and then cut."""
        if item.video is None:
            return np.zeros((0, 0, 0, 3), np.uint8), 0
        chunk = self._decoded(item.video)
        if item.motion is None:
            return chunk, 0
        previous = np.array(item.place.clip.video(item.place.phase)[item.place.chunk - 1])
        previous[:, -item.motion.shape[1]:] = item.motion
        shown = min(item.motion.shape[1] * self.video.temporal_stride, len(chunk))
        return np.concatenate([self._decoded(previous)[-shown:], chunk]), shown

    def _decoded(self, latents: NDArray) -> NDArray[np.uint8]:
        """(C, T, h, w) -> (F, H, W, 3)."""
        return to_pictures(self.video.decode(torch.from_numpy(np.array(latents, np.float32))[None]))

    def _prefix(self, latents: NDArray) -> NDArray[np.uint8]:
        """Pictures of a chunk's first latents (C, t, h, w); codecs decode whole chunks."""
        whole, t = self.clock.video_latents, latents.shape[1]
        padded = np.concatenate([latents, np.repeat(latents[:, -1:], whole - t, axis=1)], axis=1)
        return self._decoded(padded)[:1 + (t - 1) * self.video.temporal_stride]

    def _sound(self, latents: NDArray) -> NDArray[np.float32]:
        """(T, Ca) -> (S,)."""
        if not len(latents):
            return np.zeros(0, np.float32)
        return self.audio.decode(torch.from_numpy(np.array(latents, np.float32))).float().numpy()

    def _words(self, item: ChunkItem) -> list[WordView]:
        begin, base = self.items.start(item.place), item.text.base
        views, unit = [], 0
        for word in item.words:
            end = unit + len(self.items.units.encode(word.text))
            inside = base - len(item.text.spoken) <= unit < base + len(item.text.todo)
            part = OUTSIDE if not inside else SPOKEN if unit < base else TODO
            views.append(WordView(word.text, word.start - begin, word.end - begin, (unit, end), part))
            unit = end
        return views
