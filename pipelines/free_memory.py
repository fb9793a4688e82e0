"""How much memory this process may still take: what the machine has left, within a job's or container's limit."""

from __future__ import annotations

import logging
from pathlib import Path

from streamchar.errors import InputError

log = logging.getLogger(__name__)


def check_memory(need: int, what: str, remedy: str) -> None:
    """Say how many bytes ``what`` will take beside what is free.

    Raises:
        InputError: where that is more than is free, with the ``remedy``.
    """
    free = free_memory()
    told = f"{what}: about {need / 2**30:.3g} GiB at once, and {free / 2**30:.3g} GiB of memory are free"
    if need > free:
        raise InputError(f"{told}; {remedy}")
    log.info("%s", told)


def free_memory() -> int:
    """Bytes."""
    import psutil

    limit = cgroup_limit()
    left = psutil.virtual_memory().available
    return left if limit is None else max(min(left, limit - psutil.Process().memory_info().rss), 0)


def cgroup_limit(root: Path = Path("/sys/fs/cgroup"), told: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that the control groups of this process allow (version 1 or 2); None where none is limited."""
    found = []
    for line in told.read_text().splitlines() if told.is_file() else []:
        number, kinds, own = line.split(":", 2)
        top = root if number == "0" else root / "memory"
        if number == "0" or "memory" in kinds.split(","):
            at = top / own.lstrip("/")
            limits = [group / name for group in (at, *at.parents) if group.is_relative_to(top)
                      for name in ("memory.max", "memory.limit_in_bytes")]
            found += [int(text) for file in limits if file.is_file() and (text := file.read_text().strip()).isdigit()]
    return min(found, default=None)
