"""Using the model in the middle of training (samples, probes) without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch


@contextmanager
def inference(trainer: L.Trainer, module: L.LightningModule) -> Iterator[None]:
    """No gradients, evaluation mode, the run's precision; every submodule gets its own mode back afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            yield
    finally:
        for submodule, training in modes:
            submodule.training = training


def takes_part(trainer: L.Trainer) -> bool:
    """Whether this rank runs the model for samples and probes: rank 0, or all where they share its weights out."""
    return trainer.is_global_zero or getattr(trainer.strategy, "sharded", False)
