"""The pointer on held-out chunks, beside what needs no model."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor

from lightning_modules.stage_module import StageModule
from streamchar.evaluation.pointer_map import PointerMap, pointer_maps
from streamchar.evaluation.records import PointerRecord
from streamchar.orchestrator.model import Orchestrator
from streamchar.types import ChunkBatch

MAPS, MOST_CHUNKS = 4, 10
"""Held-out clips whose pointer is drawn, and chunks of each."""


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


def held_out_maps(module: StageModule, orchestrator: Orchestrator) -> list[PointerMap]:
    """The pointer over the first held-out clips' own sound, from its own position; equal on all ranks."""
    with module.trainer.precision_plugin.val_step_context():  # which Lightning leaves before an epoch's end
        return list(chain.from_iterable(
            pointer_maps(orchestrator, clip.start(module.device), clip.chunks(MOST_CHUNKS), list(clip.batch.keys),
                         clip.words) for clip in module.data().spoken_clips(MAPS)))


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
