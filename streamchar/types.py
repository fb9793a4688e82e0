"""What travels between the rooms of the house: typed batches, never dicts (design, section 8).

Legend: B batch, N text units, W characters per unit, T latents in time, C channels, h w latent grid.
``Tv Tm Ts`` are the video latents of chunk, motion and sink; ``Ta Tp Th`` the audio latents of chunk, past, history.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from streamchar.transfer import sent

T = TypeVar("T")


def tensor_map(value: Any, fn: Any) -> Any:
    """Apply ``fn`` to every tensor inside (nested) dataclasses of this file; other values pass unchanged."""
    if isinstance(value, Tensor):
        return fn(value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: tensor_map(getattr(value, f.name), fn) for f in fields(value)})
    return value


@dataclass
class Text:
    """Padded text units. ``ids`` (B, N, W) int64, 0 = padding; ``mask`` (B, N) bool, True = a real unit."""

    ids: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Text:
        return Text(sent(self.ids, device), sent(self.mask, device))


@dataclass
class Conditions:
    """All that one chunk is conditioned on, for orchestrator and denoiser (clean latents, normalised).

    ref (B, C, 1, h, w), motion (B, C, Tm, h, w), sink (B, C, Ts, h, w), past_audio (B, Tp, Ca): the context groups;
    ``has_*`` (B,) bool: False = the group is replaced by its learned null latent.
    spoken, todo: text inside the history window, and text still to say (the half-spoken word stays in todo).
    has_text (B,) bool: False = what is said is not told (the null of guidance), which is not an empty transcript.
    cursor (B,) float: pointer at the chunk's start, in units from todo's first unit, in [0, N_todo].
    history (B, Th, Ca), history_mask (B, Th): voice anchor then latest sound, right-aligned (the last latent is the
    newest); history_time (B, Th): seconds of each latent's start relative to the chunk's start, negative.
    audio_time (B, Ta): seconds of each of the chunk's audio latents' start relative to the chunk's start.
    video_latents: latents of the chunk itself where it is shorter than the clock's; None = as the clock says.
    """

    ref: Tensor
    has_ref: Tensor
    motion: Tensor
    has_motion: Tensor
    sink: Tensor
    has_sink: Tensor
    past_audio: Tensor
    has_past: Tensor
    spoken: Text
    todo: Text
    has_text: Tensor
    cursor: Tensor
    history: Tensor
    history_mask: Tensor
    history_time: Tensor
    audio_time: Tensor
    video_latents: int | None = None

    def to(self, device: torch.device | str) -> Conditions:
        """A copy with every tensor on ``device``."""
        return tensor_map(self, lambda t: sent(t, device))

    def without_text(self) -> Conditions:
        """The same, with no sample told what is said."""
        return replace(self, has_text=torch.zeros_like(self.has_text))


@dataclass
class Latents:
    """A chunk of both modalities: video (B, C, Tv, h, w), audio (B, Ta, Ca)."""

    video: Tensor
    audio: Tensor

    def detach(self) -> Latents:
        return Latents(self.video.detach(), self.audio.detach())


@dataclass
class ChunkBatch:
    """Training items: conditions, clean target and the pointer's target.

    audio_weight (B, Ta): 1 for owned latents, more for those of rare words where the orchestrator learns; 0 for surplus
    ones (in every loss, mean and normaliser).
    has_video (B,) bool: False for audio-only speech items (their video fields are zeros and carry no loss).
    pointer (B,) float: true end position, in units from todo's first unit.
    index (B,) int64: position in the one global sample order, always on the host, which draws noise and chooses by it;
    keys: sample keys, for quarantine and guards.
    groups: per sample, the set of a mixture that it comes from (losses are told apart by it); empty without a mixture.
    """

    conditions: Conditions
    target: Latents
    audio_weight: Tensor
    has_video: Tensor
    pointer: Tensor
    index: Tensor
    keys: list[str]
    groups: list[str] = field(default_factory=list)

    def to(self, device: torch.device | str) -> ChunkBatch:
        """A copy on ``device``, but for what only the host reads."""
        return replace(tensor_map(self, lambda t: sent(t, device)), index=self.index)

    def __len__(self) -> int:
        return int(self.index.shape[0])


@dataclass
class RolloutBatch:
    """Streams to begin (Stage II, validation, evaluation, command line): who speaks, and what.

    ref (B, C, 1, h, w). anchor (B, Tanchor, Ca), anchor_mask (B, Tanchor): the voice prompt's latents, right-aligned.
    words: per stream, the transcript as a list of words (may be empty: the character keeps quiet).
    start_* : real state for rollouts that begin in the middle of a real clip (has_start False: a fresh stream):
    start_motion (B, C, Tm, h, w), start_sink (B, C, Ts, h, w), start_audio (B, Trecent, Ca) with start_audio_mask,
    start_spoken: words already said inside start_audio (they precede ``words``).
    start_cursor (B,) float: units of ``words`` already said at the start (a cut word's fraction).
    has_ref (B,) bool: False = no reference picture was given (learned null); None = every stream has one.
    groups: per stream, the set of a mixture that its speaker comes from; empty without a mixture.
    index, start_cursor and start_audio_mask are always on the host, which draws noise and splits the text by them.
    """

    ref: Tensor
    anchor: Tensor
    anchor_mask: Tensor
    words: list[list[str]]
    has_start: Tensor
    start_motion: Tensor
    start_sink: Tensor
    start_audio: Tensor
    start_audio_mask: Tensor
    start_spoken: list[list[str]]
    start_cursor: Tensor
    index: Tensor
    keys: list[str]
    has_ref: Tensor | None = None
    groups: list[str] = field(default_factory=list)

    def to(self, device: torch.device | str) -> RolloutBatch:
        """A copy on ``device``, but for what only the host reads."""
        return replace(tensor_map(self, lambda t: sent(t, device)), index=self.index, start_cursor=self.start_cursor,
                       start_audio_mask=self.start_audio_mask)

    def __len__(self) -> int:
        return int(self.index.shape[0])
