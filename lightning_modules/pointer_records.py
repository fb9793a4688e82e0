"""The pointer on held-out chunks, beside what needs no model."""

from __future__ import annotations

from torch import Tensor

from streamchar.evaluation.records import PointerRecord
from streamchar.types import ChunkBatch


def pointer_records(batch: ChunkBatch, predicted: Tensor, constant: float) -> list[PointerRecord]:
    """One record per chunk with text left; positions in units from the first unit still to say.

    Args:
        predicted: (B,) predicted end positions.
        constant: units that a constant guess advances per chunk (the mean over training chunks).
    """
    out = []
    for b, key in enumerate(batch.keys):
        left = int(batch.conditions.todo.mask[b].sum())
        if left:
            start = float(batch.conditions.cursor[b])
            out.append(PointerRecord(f"{key}#{int(batch.index[b])}", 0, float(predicted[b]), float(batch.pointer[b]),
                                     min(start + constant, left), left))
    return out


class ConstantRate:
    """Mean advance of the pointer per training chunk with text left: the guess that the pointer must beat."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def see(self, batch: ChunkBatch) -> None:
        """Add a training batch."""
        talks = batch.conditions.todo.mask.any(dim=1)
        self.total += float((batch.pointer - batch.conditions.cursor)[talks].sum())
        self.count += int(talks.sum())

    def state_dict(self) -> dict[str, float]:
        """What has been seen, so that a resumed run's guess is the same."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from :meth:`state_dict`; from nothing where it is empty."""
        self.total, self.count = float(state.get("total", 0.0)), int(state.get("count", 0))

    @property
    def value(self) -> float:
        """Units per chunk; 0 before any training chunk was seen."""
        return self.total / max(self.count, 1)
