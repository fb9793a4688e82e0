"""Who works on a file: claims that processes and machines respect on one shared folder, without a coordinator.

``NAME.claim`` is created exclusively, so that one process gets it; its time is renewed while its holder lives. A claim
is void when its holder, on this machine, is gone, or when it was not renewed for :data:`VOID_S`. In the worst case (two
find the same void claim at the same moment) both do the work, which is atomic and gives the same file.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from streamchar.errors import InputError

RENEW_S = 15.0
VOID_S = 180.0


@contextmanager
def claimed(target: Path, recipe: str) -> Iterator[bool]:
    """Claim ``target`` (which need not exist); yields whether it is ours for as long as the block lasts.

    Raises:
        InputError: if another process makes the same file by another ``recipe``.
    """
    path = target.with_name(target.name + ".claim")
    if not (_create(path, recipe) or (_is_void(path, target, recipe) and _remove(path) and _create(path, recipe))):
        yield False
        return
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, ended), daemon=True)
    renewing.start()
    try:
        yield True
    finally:
        ended.set()
        renewing.join()
        path.unlink(missing_ok=True)


def _create(path: Path, recipe: str) -> bool:
    try:
        with open(path, "x") as file:
            json.dump({"host": socket.gethostname(), "process": os.getpid(), "recipe": recipe}, file)
    except FileExistsError:
        return False
    return True


def _is_void(path: Path, target: Path, recipe: str) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
        told = json.loads(path.read_text())
    except FileNotFoundError:
        return False  # given back just now: the next look finds the file made
    except ValueError:
        return age > VOID_S  # being written, or its writer died in the middle of it
    if age > VOID_S or (told["host"] == socket.gethostname() and not _alive(int(told["process"]))):
        return True
    if told["recipe"] != recipe:
        raise InputError(f"{target} is being made with other settings by process {told['process']} on {told['host']}; "
                         "wait for its end, or choose another name=")
    return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> bool:
    """Whether it was us who removed it."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _renew(path: Path, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        with suppress(OSError):
            os.utime(path)
