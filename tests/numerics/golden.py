"""Golden numbers: loss curves of the four stages, 30 steps with tiny models on counted random data.

    python -m tests.numerics.golden        # writes tests/numerics/golden/STAGE.json anew; say why in the commit

The data are random numbers of fixed seeds and not the puppet's: speech synthesis and the codecs' eigenvectors differ
between machines before any training does.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from callbacks.step_logger import StepLogger
from pipelines.provenance import hardware
from tests.small_stage import STAGES, train

FOLDER = Path(__file__).parent / "golden"
STEPS = 30
FIGURES = ("train/loss", "train/generator", "train/pointer", "stability/grad_norm_student")


class Rows(StepLogger):
    """Keeps the rows of a training stage."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def write(self, step: int, row: dict[str, float]) -> None:
        kept = {name: row[name] for name in FIGURES if name in row}
        if kept:
            self.rows.append({"step": step, **kept})


def machine() -> dict[str, str]:
    """What must be the same for the same bits: processor, its instructions that torch uses, torch."""
    return {"processor": hardware()["processor"], "instructions": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__}


def curve(stage: str, folder: Path) -> list[dict[str, Any]]:
    """Train a stage for 30 steps in ``folder``; its figures at every step."""
    rows = Rows()
    train(folder, stage, STEPS, loggers=[rows], val_every=0, ckpt_every=0)
    return rows.rows


def read(stage: str) -> dict[str, Any]:
    """The stored ``machine`` and ``curve`` of a stage."""
    return json.loads((FOLDER / f"{stage}.json").read_text())


def write(stage: str, rows: list[dict[str, Any]]) -> None:
    """Store a curve with this machine's type, one line per step, every digit."""
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    (FOLDER / f"{stage}.json").write_text(f'{{"machine": {json.dumps(machine())},\n "curve": [\n  {lines}]}}\n')


def main() -> None:
    torch.set_num_threads(1)
    for stage in STAGES:
        with tempfile.TemporaryDirectory() as folder:
            write(stage, curve(stage, Path(folder)))


if __name__ == "__main__":
    main()
