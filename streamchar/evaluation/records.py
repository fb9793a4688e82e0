"""What training modules hand to whoever watches them: plain records, free of any framework."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PointerRecord:
    """One chunk of one held-out stream: where the pointer is at the chunk's end, and where it should be, in words.

    stream: name of the stream (a sample key); chunk: number inside it. predicted, true: positions in words from the
    transcript's start. constant: the position that a constant number of words per chunk would guess. words: length of
    the transcript. stalled: the pointer has stood still for so many chunks, while text remains, that it counts as a
    stall.
    """

    stream: str
    chunk: int
    predicted: float
    true: float
    constant: float
    words: int
    stalled: bool = False


@dataclass(frozen=True)
class SampleVideo:
    """A clip to look at: panels shown side by side, with one sound.

    panels: label -> (F, 3, H, W) frames in [0, 1], in the order shown (reference, teacher, student); a still picture
    may have F = 1. All have the same H and W. wave: (S,) samples in [-1, 1], the last panel's sound.
    """

    name: str
    panels: dict[str, Tensor]
    wave: Tensor
    sample_rate: int
    fps: float
