"""Weights of one role out of a stage's newest checkpoint, for the stages that come after it."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from callbacks.checkpoint_files import load, newest_complete, role_weights
from streamchar.errors import CheckpointError, InputError


def newest_weights(folder: Path, name: str, role: str = "ema") -> dict[str, Tensor]:
    """Weights of the submodule ``name`` in ``folder``'s newest complete checkpoint, on the CPU.

    Args:
        folder: ``STAGE/checkpoints``.
        name: a trained role: ``orchestrator``, ``teacher``, ``student``, ``critic``.
        role: ``ema`` (averaged where the stage averages it) or ``trained`` (as the optimiser left them).

    Raises:
        CheckpointError: if there is no complete checkpoint, or it holds no such role.
    """
    if role not in ("ema", "trained"):
        raise InputError(f"role={role!r} of stored weights must be 'ema' or 'trained'")
    path = newest_complete(folder)
    if path is None:
        raise CheckpointError(f"{folder} holds no complete checkpoint; run stage={folder.parent.name} first")
    return role_weights(load(path), name, averaged=role == "ema")
