"""Sink-chunk checkpointing: the memory of the fixed validation streams is saved with the checkpoint and restored.

Each validation continues these streams where the former one left them, so that long-horizon behaviour is seen during
training; without their memory (first chunk as sink, motion, sound, pointer) a resumed run would begin them afresh and
its validation figures would jump.
"""

from __future__ import annotations

import logging
from typing import Any

import lightning as L

from callbacks.protocols import HasStreamMemories

log = logging.getLogger(__name__)


class SinkCheckpoint(L.Callback):
    """Keeps the state of every memory of a module with ``stream_memories`` in this rank's part of the checkpoint."""

    def __init__(self) -> None:
        self._module: L.LightningModule | None = None
        self._restored: dict[str, dict[str, Any]] = {}

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        self._module = module

    def rank_state_dict(self) -> dict[str, Any]:
        """State of this rank's streams by name; what was restored but not yet taken over is kept."""
        if not isinstance(self._module, HasStreamMemories):
            return {}
        return {**self._restored, **{name: m.state_dict() for name, m in self._module.stream_memories().items()}}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        """Taken over when training starts, once the module has made its streams."""
        self._restored = dict(state)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self._restored or not isinstance(module, HasStreamMemories):
            return
        memories = module.stream_memories()
        for name, state in self._restored.items():
            if name in memories:
                memories[name].load_state_dict(state)
            else:
                log.warning("validation stream %s of the checkpoint is no longer there: its memory is dropped", name)
        self._restored = {}
