"""Quarantine: damaged samples are put aside, counted and listed; too many of them stop the run."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from pathlib import Path

from streamchar.errors import DataError

log = logging.getLogger(__name__)


class DamagedSample(Exception):
    """One sample cannot be used; the text is the reason that the quarantine lists."""


class Quarantine:
    """Counts good and damaged samples and appends each damaged one to a jsonl file (``key``, ``reason``, ``file``).

    Args:
        path: the jsonl file, or None to keep the list in memory only.
        max_rate: highest tolerated share of damaged samples, 0 to 1.
        grace: damaged samples always tolerated while reading, so that one early bad clip does not stop a run; the
            rate is checked strictly by :meth:`finish`.
        quiet: no warnings, where samples are read for the second time.
    """

    def __init__(self, path: Path | None = None, max_rate: float = 0.05, grace: int = 3, quiet: bool = False) -> None:
        self.path, self.quiet = path, quiet
        self.max_rate = max_rate
        self.grace = grace
        self.good = 0
        self.rows: list[dict[str, str]] = []

    @property
    def damaged(self) -> int:
        """How many samples were put aside."""
        return len(self.rows)

    def accept(self) -> None:
        """Count a good sample."""
        self.good += 1

    def add(self, key: str, reason: str, file: str | os.PathLike) -> None:
        """Put a sample aside.

        Raises:
            DataError: if more than ``max_rate`` of the samples so far (and more than ``grace``) are damaged.
        """
        row = {"key": key, "reason": reason, "file": os.fspath(file)}
        self.rows.append(row)
        if not self.quiet:
            log.warning("quarantine: %s of %s: %s", key, row["file"], reason)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as out:
                out.write(json.dumps(row) + "\n")
        if self.damaged > self.grace:
            self._check()

    def finish(self) -> None:
        """Check the final rate.

        Raises:
            DataError: if more than ``max_rate`` of all samples are damaged, or none is good.
        """
        if self.good == 0:
            raise DataError(f"no usable sample: {self._summary()}; check data.shards or prepare them again "
                            "(stage=prepare)")
        self._check()

    def _check(self) -> None:
        total = self.good + self.damaged
        if self.damaged > self.max_rate * total:
            raise DataError(f"{self.damaged} of {total} samples are damaged, more than max_rate={self.max_rate}: "
                            f"{self._summary()}; repair or remove these files, or raise the allowed rate")

    def _summary(self) -> str:
        if not self.rows:
            return "the shards are empty"
        reasons = ", ".join(f"{n} x {r}" for r, n in Counter(r["reason"] for r in self.rows).most_common(5))
        listed = ", ".join(f"{r['key']} ({r['file']})" for r in self.rows[:10])
        return f"{reasons} [{listed}{', ...' if self.damaged > 10 else ''}]"
