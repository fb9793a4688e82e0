"""The pointer on held-out chunks, beside what needs no model."""

from __future__ import annotations

import torch
from torch import Tensor

from streamchar.evaluation.records import PointerRecord
from streamchar.types import ChunkBatch


def pointer_records(batch: ChunkBatch, predicted: Tensor, constant: float) -> list[PointerRecord]:
    """One record per chunk with text left; positions in units from the first unit still to say.

    Args:
        predicted: (B,) predicted end positions.
        constant: units that a constant guess advances per chunk (the mean over training chunks).
    """
    places = torch.stack([batch.conditions.todo.mask.sum(dim=1).float(), batch.conditions.cursor.float(),
                          predicted.float(), batch.pointer.float()], dim=1).tolist()  # read in one piece
    return [PointerRecord(f"{key}#{index}", 0, end, true, min(start + constant, int(left)), int(left))
            for key, index, (left, start, end, true) in zip(batch.keys, batch.index.tolist(), places, strict=True)
            if left]


class ConstantRate:
    """Mean advance of the pointer per training chunk with text left: the guess that the pointer must beat.

    Its sums stay where the batches are, so that no step waits for them.
    """

    def __init__(self) -> None:
        self.total: float | Tensor = 0.0
        self.count: int | Tensor = 0

    def see(self, batch: ChunkBatch) -> None:
        """Add a training batch."""
        talks = batch.conditions.todo.mask.any(dim=1)
        advance = batch.pointer - batch.conditions.cursor
        self.total = self.total + torch.where(talks, advance, torch.zeros_like(advance)).sum().double()
        self.count = self.count + talks.sum()

    def state_dict(self) -> dict[str, float]:
        """What has been seen, so that a resumed run's guess is the same."""
        return {"total": float(self.total), "count": int(self.count)}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from :meth:`state_dict`; from nothing where it is empty."""
        self.total, self.count = float(state.get("total", 0.0)), int(state.get("count", 0))

    @property
    def value(self) -> float:
        """Units per chunk; 0 before any training chunk was seen."""
        return float(self.total) / max(int(self.count), 1)
