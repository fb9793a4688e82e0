"""What a result was made with: code, versions, hardware, command and date."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from callbacks.redaction import redact
from pipelines.code_difference import git, new_files
from pipelines.config.places import CHECKOUT, LOCK

LARGE = 50_000_000


def provenance(command: list[str] | None = None) -> dict[str, Any]:
    """Everything that is worth knowing when a result is to be made again; plain JSON values, without secrets: no
    variables of the environment, and passwords and tokens of the command hidden."""
    given = command if command is not None else [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [redact(argument) for argument in given],
        "code": code_state(CHECKOUT),
        "lock_sha256": hashlib.sha256(LOCK.read_bytes()).hexdigest() if LOCK.exists() else None,
        "hardware": hardware(),
        "python": platform.python_version(),
        "versions": {d.metadata["Name"]: d.version for d in sorted(distributions(), key=_name) if d.metadata["Name"]},
    }


def code_state(checkout: Path) -> dict[str, Any]:
    """Git revision, whether files differ from it, and a hash of the differences (of new files too); the differences
    themselves are :func:`pipelines.code_difference.code_difference`."""
    revision = git(checkout, "rev-parse", "HEAD")
    if revision is None:
        return {"revision": None, "dirty": None, "difference_sha256": None}
    status = git(checkout, "status", "--porcelain") or b""
    if not status.strip():
        return {"revision": revision.decode().strip(), "dirty": False, "difference_sha256": None}
    digest = hashlib.sha256(git(checkout, "diff", "HEAD", "--binary") or b"")
    for name in new_files(checkout):
        digest.update(os.fsencode(name) + b"\0" + _content(checkout / name))
    return {"revision": revision.decode().strip(), "dirty": True, "difference_sha256": digest.hexdigest()}


def _content(path: Path) -> bytes:
    """Hash of a file; of a large one, which is data that was left in the checkout, its size."""
    try:
        size = path.stat().st_size
        return hashlib.sha256(path.read_bytes()).digest() if size <= LARGE else str(size).encode()
    except OSError:  # gone, or not ours to read
        return b""


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPUs, read from the system without loading torch."""
    return {
        "platform": platform.platform(),
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": [_line(str(path), "Model") for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))],
    }


def _line(path: str, key: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key) and ":" in line), None)


def _name(distribution: Any) -> str:
    return (distribution.metadata["Name"] or "").lower()
