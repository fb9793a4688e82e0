"""The ablation without the pointer: the transcript is split at a constant rate, whatever the sound says."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn
from torch import Tensor

from streamchar.errors import InputError
from streamchar.orchestrator.model import Orchestrator, Prefix
from streamchar.transcript import TextUnits, Transcript
from streamchar.types import Conditions


class OpenLoopOrchestrator(Orchestrator):
    """Speaks as ``inner`` does; its pointer advances by the same number of units in every chunk.

    Args:
        inner: the trained orchestrator, shared and unchanged.
        units_per_chunk: for example the training set's mean words, as units (:func:`units_at_rate`).
    """

    def __init__(self, inner: Orchestrator, units_per_chunk: float) -> None:
        nn.Module.__init__(self)
        self.inner, self.config, self.clock, self.rate = inner, inner.config, inner.clock, units_per_chunk

    def prefix(self, c: Conditions) -> Prefix:
        """As ``inner``."""
        return self.inner.prefix(c)

    def untold_prefix(self, c: Conditions) -> Prefix:
        """As ``inner``."""
        return self.inner.untold_prefix(c)

    def block(self, prefix: Prefix, audio: Tensor, sigma: Tensor) -> Tensor:
        """As ``inner``."""
        return self.inner.block(prefix, audio, sigma)

    def point(self, prefix: Prefix, audio: Tensor) -> Tensor:
        """(B,) the position at the chunk's start plus the constant, not beyond the units in sight."""
        return (prefix.cursor + self.rate).minimum(prefix.todo_mask.sum(dim=1).to(prefix.cursor.dtype))


def units_at_rate(words: Sequence[str], units: TextUnits, words_per_chunk: float) -> float:
    """Words per chunk as units per chunk: times the mean number of units of ``words`` (1 where words are spelled).

    Raises:
        InputError: if there are no words.
    """
    if not words:
        raise InputError("the open loop's rate needs the words that are to be said; the transcript is empty")
    return words_per_chunk * len(Transcript(words, units)) / len(words)
