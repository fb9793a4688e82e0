"""When a callback that is not called every step has its turn."""

from __future__ import annotations

import lightning as L


def due(trainer: L.Trainer, every: int) -> bool:
    """Whether the step that has just ended is one of ``every``, or the stage's last; 0 is never, -1 the last alone."""
    step = trainer.global_step
    if every == 0 or step == 0:
        return False
    return step == trainer.max_steps or (every > 0 and step % every == 0)
