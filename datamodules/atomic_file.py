"""Files that are absent, old or complete, whatever happens while they are written."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def part_of(path: Path) -> Path:
    """The temporary name under which this process writes ``path``; another machine's processes have other ones."""
    return path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.part")


def remove_parts(path: Path) -> None:
    """Remove what processes that were killed have left of ``path``."""
    for part in path.parent.glob(f"{path.name}.*.part"):
        part.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` is either absent, old or complete."""
    part = part_of(path)
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
