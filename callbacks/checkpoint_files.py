"""Checkpoints on disk: folders ``step_XXXXXXXX`` that are either complete and verified, or not there.

A checkpoint is written into ``step_XXXXXXXX.part``, its files are fsynced, the folder renamed, and at last the marker
``complete.json`` is put inside, which holds size and sha256 of every file. A reader takes only folders whose marker
fits; whatever a crash leaves behind is never mistaken for a checkpoint. Reading uses ``weights_only=True`` alone.

Files: ``state.pt`` (roles by name under ``module.weights`` and ``ema``, optimisers, counters, data cursor, config) and
one ``rank_XXXXX.pt`` per process with what belongs to that process alone (stream memories).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from streamchar.errors import CheckpointError

log = logging.getLogger(__name__)

MARKER = "complete.json"
STATE = "state.pt"


@dataclass(frozen=True)
class Keep:
    """Which complete checkpoints stay.

    last: the newest so many, 1 or more. every: those whose step is a multiple; 0: none. best: the one with the smallest
    (``largest``: the largest) value of this held-out figure, measured at its own step; empty: none.
    """

    last: int = 2
    every: int = 0
    best: str = ""
    largest: bool = False


def rank_file(rank: int) -> str:
    """Name of a process's own file."""
    return f"rank_{rank:05d}.pt"


class _HashingFile:
    """Passes writes on to a file and keeps their sha256 and size."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def begin(folder: Path, step: int) -> Path:
    """An empty ``.part`` folder for the checkpoint of ``step``."""
    part = folder / f"step_{step:08d}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def write_file(path: Path, state: Any) -> dict[str, Any]:
    """Write and fsync one file; returns its size and sha256.

    Raises:
        OSError, RuntimeError: where it cannot be written (a full disk).
    """
    with path.open("wb") as raw:
        file = _HashingFile(raw)
        torch.save(state, file)  # type: ignore[arg-type]
        raw.flush()
        os.fsync(raw.fileno())
    return {"size": file.size, "sha256": file.digest.hexdigest()}


def finish(part: Path, marker: dict[str, Any]) -> Path:
    """Rename a ``.part`` folder whose files are all written, then mark it complete; returns its new path."""
    path = part.with_suffix("")
    if path.exists():
        shutil.rmtree(path)
    part.rename(path)
    sync_folder(path.parent)
    temporary = path / f".{MARKER}.part"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(marker, file, indent=1, default=str)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path / MARKER)
    sync_folder(path)
    return path


def sync_folder(path: Path) -> None:
    """Make renames inside ``path`` survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def folders(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest step first, complete or not."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and re.fullmatch(r"step_\d{8,}", p.name))


def step_of(path: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(path.name.split("_")[1])


def read_marker(path: Path) -> dict[str, Any]:
    """The marker of a checkpoint folder.

    Raises:
        CheckpointError: if there is none, or it cannot be read: the checkpoint was never finished.
    """
    try:
        marker = json.loads((path / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} was never finished (no {MARKER}); use an older checkpoint") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path / MARKER} cannot be read ({error}); use an older checkpoint") from error
    if not isinstance(marker, dict) or not isinstance(marker.get("files"), dict):
        raise CheckpointError(f"{path / MARKER} is no checkpoint marker; use an older checkpoint")
    return marker


def verify(path: Path) -> dict[str, Any]:
    """Check every file of a checkpoint against its marker, which is returned.

    Raises:
        CheckpointError: naming the first file that is missing or differs.
    """
    marker = read_marker(path)
    for name, wanted in marker["files"].items():
        if Path(name).name != name:
            raise CheckpointError(f"{path / MARKER} names {name!r}, a file outside of the checkpoint; do not use it")
        file = path / name
        size = file.stat().st_size if file.is_file() else -1
        if size != wanted["size"]:
            have = f"{size} bytes" if size >= 0 else "nothing"
            raise CheckpointError(f"{file} is damaged: {have} in place of {wanted['size']} bytes")
        with file.open("rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != wanted["sha256"]:
                raise CheckpointError(f"{file} is damaged: its sha256 is not the one in {MARKER}")
    return marker


def newest_complete(folder: Path) -> Path | None:
    """The newest checkpoint that is complete and undamaged; damaged ones are skipped with a warning."""
    for path in reversed(folders(folder)):
        try:
            verify(path)
        except CheckpointError as error:
            log.warning("%s: skipped", error)
            continue
        return path
    return None


def load(path: Path, name: str = STATE) -> dict[str, Any]:
    """A file of a checkpoint on the CPU; tensors are read from the disk when they are used.

    Raises:
        CheckpointError: if it cannot be read as tensors and plain values.
    """
    try:
        return torch.load(path / name, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise CheckpointError(f"{path / name} cannot be loaded ({error}); use an older checkpoint") from error


def role_weights(state: dict[str, Any], role: str, averaged: bool = False) -> dict[str, Tensor]:
    """Weights of one role by their name inside it, from a loaded ``state.pt``; ``averaged`` lays the EMA over them.

    Raises:
        CheckpointError: if the checkpoint does not hold this role.
    """
    weights: dict[str, Tensor] = state["module"]["weights"]
    found = {name[len(role) + 1:]: value for name, value in weights.items() if name.startswith(role + ".")}
    if not found:
        held = sorted({name.split(".")[0] for name in weights})
        raise CheckpointError(f"the checkpoint of step {state.get('global_step')} holds no role {role!r}; "
                              f"it holds {', '.join(held)}")
    mean = state.get("ema", {}).get(role, {}).get("weights", {}) if averaged else {}
    return {**found, **{name: value for name, value in mean.items() if name in found}}


def best(folder: Path, figure: str, largest: bool = False) -> Path | None:
    """The complete checkpoint whose marker holds the smallest (or ``largest``) value of ``figure``, the newest of
    equals; None where no marker holds one."""
    found: list[tuple[float, int, Path]] = []
    for path in folders(folder):
        try:
            value = read_marker(path).get("figures", {}).get(figure)
        except CheckpointError:
            continue
        if isinstance(value, int | float) and math.isfinite(value):
            found.append((value if largest else -value, step_of(path), path))
    return max(found)[2] if found else None


def prune(folder: Path, keep: Keep) -> None:
    """Delete all complete checkpoints but those to keep, and what unfinished saves have left behind."""
    complete = [p for p in folders(folder) if (p / MARKER).exists()]
    unfinished = [p for p in folders(folder) if p not in complete] + list(folder.glob("step_*.part"))
    stay = {*complete[-keep.last:], *(p for p in complete if keep.every and step_of(p) % keep.every == 0)}
    if keep.best and (chosen := best(folder, keep.best, keep.largest)):
        stay.add(chosen)
    for path in [*(p for p in complete if p not in stay), *unfinished]:
        # Without its marker a half-deleted checkpoint is an unfinished one, whatever happens next.
        (path / MARKER).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
