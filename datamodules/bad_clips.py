"""The clips of a latent set that cannot be used, known to every process of a run through one file."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class BadClips:
    """Keeps the reason of each bad clip; with a file, also what other ranks and loader workers have found.

    A line of the file is ``{"key", "reason", "file"}``, as for raw samples; each is appended in one write. Two
    processes that meet the same clip at the same moment write it twice, and it counts once.

    Args:
        path: the jsonl file; None keeps the list in this process.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.reasons: dict[str, str] = {}
        self._read_to = 0

    def __len__(self) -> int:
        """Clips that any process has found to be bad so far."""
        self._refresh()
        return len(self.reasons)

    def add(self, key: str, reason: str, file: str) -> None:
        """Put a clip aside; one that is listed already is not listed again."""
        self._refresh()
        if key in self.reasons:
            return
        self.reasons[key] = reason
        log.warning("quarantine: %s of %s: %s", key, file, reason)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps({"key": key, "reason": reason, "file": file}) + "\n"
            out = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(out, line.encode())
            finally:
                os.close(out)

    def _refresh(self) -> None:
        """Read the lines that were written since, by whomever."""
        if self.path is None or not self.path.exists() or self.path.stat().st_size <= self._read_to:
            return
        with open(self.path, "rb") as lines:
            lines.seek(self._read_to)
            fresh = lines.read()
        whole = fresh[:fresh.rfind(b"\n") + 1]
        self._read_to += len(whole)
        for line in whole.splitlines():
            row = json.loads(line)
            self.reasons.setdefault(row["key"], row["reason"])
