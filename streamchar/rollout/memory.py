"""What a stream remembers: sink, motion, voice, pointer, chunk number and noise counter, as one object (design, 7).

A stream or a rollout saved in the middle and restored continues bit-identically on CPU. All streams of a batch are at
the same chunk number. Shape suffixes as in :mod:`streamchar.types`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from streamchar.clock import ChunkClock
from streamchar.diffusion.noise import Draws, NoiseKey
from streamchar.errors import CheckpointError
from streamchar.orchestrator.pointer import advance
from streamchar.transcript import TextUnits, Transcript, pack_text, split_transcript
from streamchar.transfer import sent
from streamchar.types import Conditions, Latents, RolloutBatch
from streamchar.window import WindowConfig

END_TOLERANCE = 0.2  # units: a pointer this close to the end has said the last word
BEGUN = 1e-3  # words: a pointer less far into a word has not begun it
_TENSORS = ("ref", "has_ref", "sink", "has_sink", "motion", "has_motion", "anchor", "anchor_mask", "recent",
            "recent_mask", "pointer", "quiet", "stalled", "index", "trace")


class StreamMemory:
    """Memory of a batch of streams.

    Latents lie where the batch's do. Pointer, its trace, counters, numbers and the mask of the heard sound stay on the
    host, which splits the text by them: it waits for the device once per chunk, for the end that was predicted.

    Args:
        batch: who speaks and what; start state for rollouts that begin inside a real clip.
        clock, window: the grid and how much is remembered.
        units: how words become text units.
        seed: of the streams' noise.
        use_sink: False never fills the sink (the ablation without it).
    """

    def __init__(self, batch: RolloutBatch, clock: ChunkClock, window: WindowConfig, units: TextUnits,
                 seed: int = 0, use_sink: bool = True) -> None:
        self.clock, self.window, self.units, self.seed, self.use_sink = clock, window, units, seed, use_sink
        size, device = len(batch), batch.ref.device
        self.chunk = 0
        every = torch.ones(size, dtype=torch.bool, device=device)
        self.ref, self.has_ref = batch.ref, every if batch.has_ref is None else batch.has_ref
        self.anchor, self.anchor_mask = batch.anchor, batch.anchor_mask
        self.motion, self.has_motion = batch.start_motion, batch.has_start.clone()
        self.sink, self.has_sink = batch.start_sink, batch.has_start & use_sink
        self.recent, self.recent_mask = batch.start_audio, batch.start_audio_mask.cpu()
        self.transcripts = [Transcript([*s, *w], units) for s, w in
                            zip(batch.start_spoken, batch.words, strict=True)]
        begin = [t.unit_position(len(s)) for t, s in zip(self.transcripts, batch.start_spoken, strict=True)]
        self.pointer = torch.tensor(begin, dtype=torch.float32) + batch.start_cursor.cpu().float()
        self.quiet = torch.zeros(size, dtype=torch.int64)
        self.stalled = torch.zeros(size, dtype=torch.int64)
        self.index = batch.index.cpu()
        # Pointer at past chunk borders: rows (seconds before the newest border, positions...); newest last.
        heard = self.recent_mask.sum(dim=1).float() / clock.audio_rate
        self.trace = torch.stack((torch.stack((-heard, torch.zeros_like(self.pointer)), 1),
                                  torch.stack((-heard.clamp_min(1e-6), self.pointer), 1)), dim=1)
        self.trace[:, 1, 0] = 0.0

    @property
    def chunks(self) -> list[int]:
        """Number of the next chunk of each stream."""
        return [self.chunk] * len(self.transcripts)

    def owned(self) -> list[int]:
        """Audio latents that the next chunk of each stream owns."""
        return [self.clock.audio_owned(k) for k in self.chunks]

    def noise(self, role: str, iteration: int) -> Draws:
        """What identifies the next chunk's noise."""
        return NoiseKey.of(self.seed, self.index, role, iteration).at(chunk=self.chunk)

    @property
    def lengths(self) -> Tensor:
        """(B,) units of each transcript."""
        return torch.tensor([len(t) for t in self.transcripts], dtype=torch.float32)

    @property
    def finished(self) -> Tensor:
        """(B,) True where all of the text has been said and a quiet chunk has followed."""
        return self.quiet > 0

    @property
    def text_done(self) -> Tensor:
        """(B,) True where no text is left to say."""
        return self.pointer >= self.lengths

    def pointer_words(self) -> Tensor:
        """(B,) pointer in words."""
        return torch.tensor([t.word_position(float(p)) for t, p in zip(self.transcripts, self.pointer, strict=True)])

    def append_text(self, stream: int, words: list[str]) -> None:
        """Text that arrives while stream number ``stream`` speaks."""
        self.transcripts[stream].append(words)
        if words:
            self._set("quiet", stream, 0)

    def replace_text(self, stream: int, words: list[str], cut: bool = False) -> None:
        """What stream number ``stream`` has still to say becomes ``words``.

        The word that it is saying is finished first; with ``cut`` it counts as said, and the next chunk knows nothing
        of it. Texts that have been said stay, so that the history keeps its words.
        """
        old = self.transcripts[stream]
        said = ceil(old.word_position(float(self.pointer[stream])) - BEGUN)
        new = Transcript([*old.words[:said], *words], self.units)
        self.transcripts[stream] = new
        if cut:
            self._set("pointer", stream, new.unit_position(float(said)))
        self._set("stalled", stream, 0)
        if words:
            self._set("quiet", stream, 0)

    def _set(self, name: str, stream: int, value: float) -> None:
        """Change one stream's entry in a copy: the tensor may come from inference mode, where it cannot be changed."""
        tensor: Tensor = getattr(self, name).clone()
        tensor[stream] = value
        setattr(self, name, tensor)

    def _spoken_from(self, b: int) -> float:
        seconds = float(self.recent_mask[b].sum()) / self.clock.audio_rate
        times, places = self.trace[b, :, 0].tolist(), self.trace[b, :, 1].tolist()
        return float(np.interp(-seconds, times, places))

    def conditions(self) -> tuple[Conditions, Tensor]:
        """Conditions of the next chunk, and (B,) ``base``: the position of each todo's first unit."""
        window, clock, k = self.window, self.clock, self.chunk
        splits = [split_transcript(t, self._spoken_from(b), float(self.pointer[b]), window.max_spoken, window.max_todo)
                  for b, t in enumerate(self.transcripts)]
        width, device, size = self.units.width, self.ref.device, len(self.transcripts)
        past = window.past_latents(clock)
        heard = sent(self.recent_mask, device)
        rows = sent(torch.tensor([window.history_time(clock, k)]), device).expand(size, -1)
        audio_time = sent(torch.tensor([window.audio_time(clock, k)]), device).expand(size, -1)
        conditions = Conditions(
            self.ref, self.has_ref, self.motion, self.has_motion, self.sink, self.has_sink,
            self.recent[:, self.recent.shape[1] - past:], heard[:, -1],
            pack_text([s.spoken for s in splits], window.max_spoken, width, "right").to(device),
            pack_text([s.todo for s in splits], window.max_todo, width, "left").to(device),
            torch.ones(size, dtype=torch.bool, device=device),
            sent(torch.tensor([s.cursor for s in splits]), device),
            torch.cat((self.anchor, self.recent), dim=1), torch.cat((self.anchor_mask, heard), dim=1),
            rows, audio_time, clock.latents(k) if clock.latents(k) < clock.video_latents else None)
        return conditions, sent(torch.tensor([float(s.base) for s in splits]), device)

    def advance(self, latents: Latents, predicted: Tensor, rate: float) -> None:
        """Take in a finished chunk: ``latents`` detached, ``predicted`` (B,) absolute end position in units."""
        owned = self.clock.audio_owned(self.chunk)
        video, audio = latents.video.detach(), latents.audio.detach()[:, :owned]
        whole = video.shape[2] == self.clock.video_latents  # a shorter first chunk is no sink: the next one is
        if self.use_sink and whole:
            fill = (~self.has_sink).reshape(-1, 1, 1, 1, 1)
            self.sink = torch.where(fill, video[:, :, :self.window.sink_latents], self.sink)
            self.has_sink = torch.ones_like(self.has_sink)
        self.motion = self._last_motion(video)
        self.has_motion = torch.ones_like(self.has_motion)
        size = self.recent.shape[1]
        self.recent = torch.cat((self.recent, audio), dim=1)[:, -size:]
        self.recent_mask = torch.cat((self.recent_mask, self.recent_mask.new_ones(audio.shape[:2])), dim=1)[:, -size:]
        self._move_pointer(predicted, rate)
        self.chunk += 1

    def _last_motion(self, video: Tensor) -> Tensor:
        """The last latents; before a shorter first chunk began, it stood still."""
        missing = self.window.motion_latents - video.shape[2]
        if missing > 0:
            return torch.cat((video[:, :, :1].expand(-1, -1, missing, -1, -1), video), dim=2)
        return video[:, :, video.shape[2] - self.window.motion_latents:]

    def _move_pointer(self, predicted: Tensor, rate: float) -> None:
        before, lengths = self.pointer, self.lengths
        done_before = before >= lengths
        seconds = float(self.clock.seconds(self.chunk))
        # The one wait of a chunk: what the next one is to say depends on where this one ended.
        after = advance(before, predicted.float().cpu(), rate, seconds, lengths)
        after = torch.where(lengths - after < END_TOLERANCE, lengths, after)
        self.stalled = torch.where((after - before < 1e-3) & ~done_before, self.stalled + 1, 0)
        self.quiet = torch.where(done_before, self.quiet + 1, self.quiet)
        self.pointer = after
        shifted = self.trace.clone()
        shifted[:, :, 0] -= seconds
        newest = torch.stack((torch.zeros_like(after), after), dim=1)[:, None]
        keep = 2 + int(self.window.recent_s / float(self.clock.chunk_seconds)) + 1
        self.trace = torch.cat((shifted, newest), dim=1)[:, -keep:]

    def rows(self, at: slice) -> StreamMemory:
        """Some of the streams, as a memory that goes on by itself; their texts stay shared."""
        part = copy(self)
        for name in _TENSORS:
            setattr(part, name, getattr(self, name)[at])
        part.transcripts = self.transcripts[at]
        return part

    @staticmethod
    def together(parts: Sequence[StreamMemory]) -> StreamMemory:
        """The streams of several memories at one chunk number as one memory; undoes :meth:`rows`."""
        if len(parts) == 1:
            return parts[0]
        whole = copy(parts[0])
        for name in _TENSORS:
            setattr(whole, name, torch.cat([getattr(part, name) for part in parts]))
        whole.transcripts = [t for part in parts for t in part.transcripts]
        return whole

    def copy(self) -> StreamMemory:
        """The same streams with tensors and texts of their own."""
        other = copy(self)
        other.load_state_dict(self.state_dict())
        return other

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next chunk depends on, as tensors, numbers and lists of words."""
        state: dict[str, Any] = {name: getattr(self, name).clone() for name in _TENSORS}
        return {**state, "chunk": self.chunk, "seed": self.seed, "use_sink": self.use_sink,
                "words": [list(t.words) for t in self.transcripts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; raises CheckpointError where it belongs to another geometry."""
        for name in _TENSORS:
            have, given = getattr(self, name), state[name]
            if name != "trace" and have.shape[1:] != given.shape[1:]:
                raise CheckpointError(f"stream memory: {name} has shape {tuple(given.shape)}, this run's is "
                                      f"{tuple(have.shape)}; start the stream afresh or use the run's own window")
            setattr(self, name, given.to(have.device).clone())
        self.chunk, self.seed, self.use_sink = state["chunk"], state["seed"], state["use_sink"]
        self.transcripts = [Transcript(w, self.units) for w in state["words"]]
