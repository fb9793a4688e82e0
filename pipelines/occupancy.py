"""One process at a time makes a stage: two jobs with one name would write over each other's checkpoints."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pipelines.run_directory import global_rank
from streamchar.errors import InputError

log = logging.getLogger(__name__)

LOCK = "occupied.lock"


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Hold a stage's folder; rank 0 does so for all ranks.

    The lock is the kernel's (POSIX, so shared file systems pass it between nodes): it ends with the process, however
    that ends, and a requeued job finds none. The file's text only says who holds it.

    Raises:
        InputError: if another process holds it, naming job, node and process; if the folder cannot be made.
    """
    if global_rank() != 0:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = (folder / LOCK).open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}; free some space or choose another "
                         "root=") from error
    with opened as file:
        _lock(file.fileno(), folder)
        file.truncate(0)
        file.write(json.dumps({"job": os.environ.get("SLURM_JOB_ID"), "node": socket.gethostname(),
                               "process": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}))
        file.flush()
        yield


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            log.warning("%s cannot be locked (%s): see to it yourself that no second job has this name", folder,
                        error.strerror)
            return
        raise InputError(f"{folder} is being worked on by {_holder(folder)}; wait for its end, or choose another "
                         "name=") from error


def _holder(folder: Path) -> str:
    try:
        told = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "another process"
    job = f"job {told['job']}, " if told.get("job") else ""
    return f"{job}process {told['process']} on {told['node']} (since {told['since']})"
