"""The pointer on real held-out sound, chunk by chunk: does it follow a voice that it did not make?

The clip's own latents take the place of the generated ones on exactly the stream's path (memory, split text, prefix,
block at t = 0, rate limit). *Forced*: every chunk starts from the true position, so that chunk errors are independent,
as in the constant-rate guess beside them. *Free*: the pointer goes on from its own position, errors and all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from streamchar.orchestrator.pointer import advance
from streamchar.rollout.character import Character
from streamchar.transcript import Word, word_position_at
from streamchar.types import Latents, RolloutBatch


@dataclass
class PointerTrack:
    """Positions in words at chunk ends (``predicted``, ``true``), at chunk starts (``start``), and text lengths."""

    predicted: list[float] = field(default_factory=list)
    true: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)

    def extend(self, other: PointerTrack) -> None:
        """Pool another clip's chunks."""
        for name in ("predicted", "true", "start", "total"):
            getattr(self, name).extend(getattr(other, name))


@torch.no_grad()
def pointer_on_sound(character: Character, batch: RolloutBatch, video: Tensor, audio: Tensor, words: list[Word],
                     forced: bool = True) -> PointerTrack:
    """Run the pointer over one clip.

    Args:
        batch: one stream, whose words are those of ``words``.
        video: (chunks, C, Tv, h, w) and audio: (T, Ca): the clip's latents from its start; whole chunks are used.
        words: with their times in seconds.
        forced: start every chunk at the true position.
    """
    clock, orchestrator = character.clock, character.orchestrator
    memory, track = character.start(batch), PointerTrack()
    transcript, rate = memory.transcripts[0], orchestrator.config.pointer_rate
    for k in range(len(video)):
        piece = audio[clock.audio_start(k):clock.audio_start(k) + clock.audio_latents][None].to(batch.ref.device)
        if piece.shape[1] < clock.audio_latents:
            break
        conditions, base = memory.conditions()
        ahead = base + orchestrator.point(orchestrator.prefix(conditions), piece)
        predicted = advance(memory.pointer, ahead.float().cpu(), rate, float(clock.chunk_seconds), memory.lengths)
        true = word_position_at(words, float(clock.chunk_start(k + 1)))
        track.start.append(float(memory.pointer_words()[0]))
        track.predicted.append(transcript.word_position(float(predicted[0])))
        track.true.append(true)
        track.total.append(float(len(transcript.words)))
        latents = Latents(video[k][None].to(batch.ref.device), piece)
        if forced:
            memory.advance(latents, predicted.new_tensor([transcript.unit_position(true)]), math.inf)
        else:
            memory.advance(latents, ahead, rate)
    return track
