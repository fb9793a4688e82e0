"""Pointer alignment on held-out streams: predicted against true position per chunk, as figures and as a picture."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import lightning as L
import torch

from callbacks.protocols import HasPointerRecords, PointerRecord
from callbacks.step_logger import log_file, log_now

log = logging.getLogger(__name__)

SHOWN = 6


class PointerLogging(L.Callback):
    """After every validation: ``pointer/error_words``, ``pointer/constant_rate_error``, ``pointer/stalls``, a picture.

    Takes the records that the module noted while it validated (protocol :class:`HasPointerRecords`), of all ranks.

    Args:
        folder: where ``pointer_step_XXXXXXXX.png`` goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if isinstance(module, HasPointerRecords):
            module.pointer_records.clear()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not isinstance(module, HasPointerRecords) or trainer.sanity_checking:
            return
        records = _all_ranks(trainer, module.pointer_records)
        if not records or not trainer.is_global_zero:
            return
        log_now(trainer, pointer_figures(records))
        path = self.folder / f"pointer_step_{trainer.global_step:08d}.png"
        try:
            draw_alignment(records, path)
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


def draw_alignment(records: list[PointerRecord], path: Path) -> None:
    """A small plot per stream: words said (true, black), the pointer (blue), the constant guess (grey dashes), stalls
    (red)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    streams: dict[str, list[PointerRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.chunk):
        streams[record.stream].append(record)
    shown = list(streams.items())[:SHOWN]
    figure = Figure(figsize=(3.2 * len(shown), 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, (name, rows) in zip(axes, shown, strict=True):
        chunks = [r.chunk + 1 for r in rows]
        axis.plot(chunks, [r.true for r in rows], "k-", label="said")
        axis.plot(chunks, [r.constant for r in rows], "--", color="grey", label="constant rate")
        axis.plot(chunks, [r.predicted for r in rows], "o-", color="tab:blue", label="pointer")
        stalled = [r for r in rows if r.stalled]
        axis.plot([r.chunk + 1 for r in stalled], [r.predicted for r in stalled], "rx", markersize=10)
        axis.axhline(rows[0].words, color="lightgrey", linewidth=1)
        axis.set_title(name[:32], fontsize=8)
        axis.set_xlabel("chunks")
    axes[0].set_ylabel("words")
    axes[0].legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def _all_ranks(trainer: L.Trainer, records: list[PointerRecord]) -> list[PointerRecord]:
    """Records of all ranks, each (stream, chunk) once (validation lists are padded)."""
    gathered: list[Any] = [list(records)]
    if trainer.world_size > 1:
        gathered = [None] * trainer.world_size
        torch.distributed.all_gather_object(gathered, list(records))
    return list({(r.stream, r.chunk): r for part in gathered for r in part}.values())
