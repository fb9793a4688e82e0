"""A run without its data: what it was trained on is renamed aside for a while, and comes back whatever happens.

Whoever holds the data aside holds a lock on the folder; the kernel frees it when the process ends, however it ends. So
any later command on the run can tell data left behind by a crash, which it restores, from data in use elsewhere.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.run_directory import RunDirectory
from streamchar.errors import InputError

log = logging.getLogger(__name__)

ASIDE = "data_moved_aside"


def _places(directory: RunDirectory) -> list[tuple[Path, Path]]:
    """Where the run's data lie, and where each goes."""
    aside = directory.path / ASIDE
    return [(directory.stage("prepare"), aside / "prepare"),
            (directory.stage("encode") / "latents", aside / "latents")]


@contextmanager
def data_moved_aside(directory: RunDirectory) -> Iterator[list[Path]]:
    """Inside, only codecs and checkpoints are left of the run; yields the folders that are gone.

    Raises:
        InputError: where the run's folder cannot be written, or another process has moved the data already.
    """
    restore_data(directory)
    aside = directory.path / ASIDE
    try:
        aside.mkdir(exist_ok=True)
        lock = os.open(aside, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot move the data of run {directory.name!r} away: {error}; its folder must be writable "
                         "(or set evaluate.gate=false)") from error
    try:
        _lock(lock, directory)
        moved = []
        try:
            for home, away in _places(directory):
                if home.exists():
                    home.rename(away)
                    moved.append(home)
            yield moved
        finally:
            _bring_back(directory)
    finally:
        os.close(lock)


def restore_data(directory: RunDirectory) -> bool:
    """Bring back what a process that is gone has left aside; whether there was anything to bring back."""
    aside = directory.path / ASIDE
    if not aside.is_dir():
        return False
    lock = os.open(aside, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False  # in use by a gate that is running
    else:
        log.warning("run %s: its data was left aside by an evaluation that did not end; it is brought back",
                    directory.name)
        _bring_back(directory)
        return True
    finally:
        os.close(lock)


def _lock(lock: int, directory: RunDirectory) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(f"the gate of run {directory.name!r} is running in another process, which has moved the data "
                         "away; wait for it, or choose another name=") from error


def _bring_back(directory: RunDirectory) -> None:
    for home, away in _places(directory):
        if not away.exists():
            continue
        if home.exists():
            log.warning("%s was made anew meanwhile and is kept; the older one stays in %s", home, away)
            continue
        home.parent.mkdir(parents=True, exist_ok=True)
        away.rename(home)
    aside = directory.path / ASIDE
    if not any(aside.iterdir()):
        aside.rmdir()
