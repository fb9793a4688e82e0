"""stability/spike_loss and stability/spike_grad: how far a step's loss and gradient norm stand out of the last ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L

from callbacks.protocols import HasFigures
from callbacks.step_logger import log_now

WINDOW, ENOUGH = 128, 16


def spike_score(value: float, before: Sequence[float]) -> float:
    """``(value - median) / (1.4826 MAD)`` of the values before: deviations in units of a normal's standard deviation,
    with both measures robust to the spikes themselves. Nothing stands out by less than a thousandth of the median."""
    ordered = sorted(before)
    middle = _middle(ordered)
    spread = 1.4826 * _middle(sorted([abs(v - middle) for v in ordered]))
    return (value - middle) / max(spread, 1e-3 * abs(middle), 1e-12)


def _middle(ordered: Sequence[float]) -> float:
    """Median of sorted values."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


class Spikes(L.Callback):
    """Scores every step against the up to 128 before it, from the 17th on, and logs the highest since the last logged
    step: of ``train/loss``, and of the gradient norms of all roles, each against its own past."""

    def __init__(self) -> None:
        self.before: dict[str, list[float]] = {}
        self.highest: dict[str, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if not isinstance(module, HasFigures):
            return
        for name, value in module.step_figures.items():
            if name == "train/loss":
                self.take("stability/spike_loss", name, value)
            elif name.startswith("stability/grad_norm_"):
                self.take("stability/spike_grad", name, value)
        if trainer.global_step % trainer.log_every_n_steps == 0 and self.highest:  # type: ignore[attr-defined]
            log_now(trainer, self.highest)
            self.highest = {}

    def take(self, score: str, name: str, value: float) -> None:
        """Score one more value of a figure; one that is not finite is the guard's affair and no measure for others."""
        if not math.isfinite(value):
            return
        before = self.before.setdefault(name, [])
        if len(before) >= ENOUGH:
            found = spike_score(value, before)
            self.highest[score] = max(found, self.highest.get(score, found))
        before.append(value)
        del before[:-WINDOW]

    def state_dict(self) -> dict[str, Any]:
        return {"before": {name: list(values) for name, values in self.before.items()}, "highest": dict(self.highest)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.before = {name: list(values) for name, values in state_dict["before"].items()}
        self.highest = dict(state_dict["highest"])
