"""The pointer on held-out streams: its error as figures, and where it looks as a heat map."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch

from callbacks.protocols import HasPointerMaps, HasPointerRecords, PointerRecord
from callbacks.step_logger import log_file, log_now
from streamchar.evaluation.pointer_picture import draw_pointer_maps

log = logging.getLogger(__name__)


class PointerLogging(L.Callback):
    """After every validation: ``pointer/error_words``, ``pointer/constant_rate_error``, ``pointer/stalls``, a heat map.

    Takes the records that the module noted while it validated (protocol :class:`HasPointerRecords`), of all ranks, and
    its maps (:class:`HasPointerMaps`), which are the same on all. A module may have either.

    Args:
        folder: where ``pointer_step_XXXXXXXX.png`` goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if isinstance(module, HasPointerRecords):
            module.pointer_records.clear()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if isinstance(module, HasPointerRecords):
            records = _all_ranks(trainer, module.pointer_records)
            if records and trainer.is_global_zero:
                log_now(trainer, pointer_figures(records))
        if isinstance(module, HasPointerMaps) and module.pointer_maps and trainer.is_global_zero:
            self._draw(trainer, module)

    def _draw(self, trainer: L.Trainer, module: HasPointerMaps) -> None:
        path = self.folder / f"pointer_step_{trainer.global_step:08d}.png"
        try:
            draw_pointer_maps(module.pointer_maps, path)
        except OSError as error:
            log.warning("%s was not written: %s", path, error)
            return
        log_file(trainer, path, "samples")


def pointer_figures(records: list[PointerRecord]) -> dict[str, float]:
    """Mean absolute errors in words over the chunks that had text left, and the number of stalled chunks."""
    before: dict[tuple[str, int], float] = {(r.stream, r.chunk + 1): r.true for r in records}
    counted = [r for r in records if before.get((r.stream, r.chunk), 0.0) < r.words]
    figures = {"pointer/stalls": float(sum(r.stalled for r in records))}
    if counted:
        figures["pointer/error_words"] = sum(abs(r.predicted - r.true) for r in counted) / len(counted)
        figures["pointer/constant_rate_error"] = sum(abs(r.constant - r.true) for r in counted) / len(counted)
    return figures


def _all_ranks(trainer: L.Trainer, records: list[PointerRecord]) -> list[PointerRecord]:
    """Records of all ranks, each (stream, chunk) once (validation lists are padded)."""
    gathered: list[Any] = [list(records)]
    if trainer.world_size > 1:
        gathered = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, list(records))
    return list({(r.stream, r.chunk): r for part in gathered for r in part}.values())
