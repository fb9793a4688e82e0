"""Composing the beginning of a rollout: who speaks, what, and for some streams the real state they go on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.collate import ChunkCollate
from datamodules.compose import ItemComposer
from datamodules.latent_clip import LatentClip
from datamodules.stacking import flags, numbers, positions
from streamchar.transcript import Transcript, word_position_at
from streamchar.types import RolloutBatch

OUTLAST = 1.25
MAX_CLIPS = 400


@dataclass
class RolloutItem:
    """One stream to begin; ``motion`` is None for a fresh stream; ``group``: the set of a mixture."""

    key: str
    position: int
    ref: np.ndarray | None
    anchor: np.ndarray
    words: list[str]
    motion: np.ndarray | None = None
    sink: np.ndarray | None = None
    audio: np.ndarray | None = None
    spoken: tuple[str, ...] = ()
    cursor: float = 0.0
    group: str = ""


class RolloutComposer:
    """Rollout items by position, from the same clips and order as chunk items.

    Args:
        chunks: composer of the store (its order, partners and options are used).
        rollout_chunks: chunks that a transcript must outlast; None: ``cfg.rollout_chunks``.
    """

    def __init__(self, chunks: ItemComposer, rollout_chunks: int | None = None) -> None:
        self.chunks = chunks
        self.seconds = float((rollout_chunks or chunks.cfg.rollout_chunks) * chunks.clock.chunk_seconds)

    def item(self, position: int) -> RolloutItem:
        """The stream at a position of the global order."""
        c = self.chunks
        rng = c.draws.at(position)
        clip = c.clip_at(position, rng)
        ref = c.partners.reference(clip, rng) if clip.has_video else None
        anchor = c.partners.anchor(clip, c.window.anchor_latents(c.clock), rng, None)
        if clip.has_video and rng.random() < c.cfg.real_start_p:
            item = self._real_start(clip, position, ref, anchor, rng)
        else:
            item = RolloutItem(clip.record.key, position, ref, anchor, [w.text for w in clip.record.timed])
        self._prolong(item, clip, rng)
        item.group = c.store.set_of(clip) if c.weights else ""
        return item

    def _real_start(self, clip: LatentClip, position: int, ref: np.ndarray | None, anchor: np.ndarray,
                    rng: np.random.Generator) -> RolloutItem:
        """Start before a chunk inside the clip: its motion, its own first chunk as sink, its sound and its text.

        Where audio latents do not fit chunks evenly, chunks whose sound starts within half a latent are used: the
        rollout counts from 0 again, so its first latent is taken to start with the chunk.
        """
        c = self.chunks
        phase = c.partners.phase(rng)
        facts = clip.facts(c.clock)
        numbers = range(1, max(facts.spoken[phase], 2))
        close = [k for k in numbers if c.clock.audio_offset(k) * c.clock.audio_rate <= 0.5] or list(numbers)
        k = close[int(rng.integers(len(close)))]
        origin = facts.origins[phase]
        begin, at = origin + k * c.chunk_s, c.clock.audio_start(k)
        video = clip.video(phase)
        audio = clip.audio(phase)[max(at - c.window.recent_latents(c.clock), 0):at]
        words = facts.words[phase]
        names = [w.text for w in words]
        said = word_position_at(words, begin)
        first = int(word_position_at(words, origin + (at - len(audio)) / c.clock.audio_rate))
        transcript = Transcript(names[int(said):], c.units)
        return RolloutItem(clip.record.key, position, ref, anchor, transcript.words,
                           motion=video[k - 1][:, -c.window.motion_latents:],
                           sink=video[0][:, :c.window.sink_latents], audio=audio,
                           spoken=tuple(names[first:int(said)]), cursor=transcript.unit_position(said - int(said)))

    def _prolong(self, item: RolloutItem, clip: LatentClip, rng: np.random.Generator) -> None:
        """Add words of further clips until the rollout is outlasted, or cut them so that they end inside it."""
        c = self.chunks
        pace = self._pace(clip)
        inside = rng.random() < c.cfg.end_inside_p
        wanted = self.seconds * (rng.uniform(0.1, 0.8) if inside else OUTLAST)
        seconds = len(item.words) * pace
        for _ in range(MAX_CLIPS):
            if seconds >= wanted:
                break
            other = c.partners.other(clip, "speaker", rng) or clip
            if not other.record.timed:
                seconds += other.record.seconds  # silence passes, so that wordless sets end too
                continue
            item.words = item.words + [w.text for w in other.record.timed]
            seconds += len(other.record.timed) * self._pace(other)
        if inside:
            item.words = item.words[:max(int(wanted / pace), 1)]

    def _pace(self, clip: LatentClip) -> float:
        """Seconds per word from the first word's start to the last one's end (pauses between clips not counted)."""
        words = clip.record.timed
        return max((words[-1].end - words[0].start) / len(words), 0.05) if words else 0.4


class RolloutCollate:
    """Rollout items -> :class:`RolloutBatch`; shapes as in :class:`ChunkCollate`."""

    def __init__(self, shapes: ChunkCollate) -> None:
        self.shapes = shapes

    def __call__(self, items: Sequence[RolloutItem]) -> RolloutBatch:
        s, w = self.shapes, self.shapes.window
        stack, align = s.stacking.stack, s.stacking.right_align
        anchor, anchor_mask = align([(w.anchor_latents(s.clock), [i.anchor for i in items])], s.audio_channels)
        sounds = [i.anchor[:0] if i.audio is None else i.audio for i in items]
        audio, audio_mask = align([(w.recent_latents(s.clock), sounds)], s.audio_channels)
        refs, motions = [i.ref for i in items], [i.motion for i in items]
        has_ref, has_start = flags([r is not None for r in refs], [m is not None for m in motions])
        return RolloutBatch(
            ref=stack(refs, s.group(1)), anchor=anchor, anchor_mask=anchor_mask,
            words=[list(i.words) for i in items], has_start=has_start,
            start_motion=stack(motions, s.group(w.motion_latents)),
            start_sink=stack([i.sink for i in items], s.group(w.sink_latents)),
            start_audio=audio, start_audio_mask=audio_mask, start_spoken=[list(i.spoken) for i in items],
            start_cursor=numbers([i.cursor for i in items])[0],
            index=positions([i.position for i in items]), keys=[i.key for i in items],
            has_ref=has_ref, groups=[i.group for i in items if i.group])
