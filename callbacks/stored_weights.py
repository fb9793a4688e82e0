"""Weights of one role out of a stage's newest checkpoint, for the stages that come after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from callbacks.checkpoint_files import load, newest_complete, role_weights
from streamchar.errors import CheckpointError, InputError


@dataclass(frozen=True)
class StoredRole:
    """A role as a stage left it.

    weights: by their name inside the model, on the CPU. adapters: options of the adapters that they are, or None where
    they are a whole model. made: hashes of the results that the stage was made from, by stage.
    """

    weights: dict[str, Tensor]
    adapters: dict[str, Any] | None
    made: dict[str, str]


def newest_role(folder: Path, name: str, role: str = "ema") -> StoredRole:
    """The submodule ``name`` in ``folder``'s newest complete checkpoint.

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
    state = load(path)
    settings = state.get("about", {}).get("settings", {})
    made = {key.removeprefix("made."): value for key, value in settings.items() if key.startswith("made.")}
    return StoredRole(role_weights(state, name, averaged=role == "ema"), state["module"].get("adapters"), made)


def newest_weights(folder: Path, name: str, role: str = "ema") -> dict[str, Tensor]:
    """The weights alone of :func:`newest_role`, which raises what that does."""
    return newest_role(folder, name, role).weights
