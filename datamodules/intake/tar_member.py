"""A recording or its text inside a tar: read from its place, without unpacking."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from datamodules.intake.rejection import Rejected


class TarMember(NamedTuple):
    """``name``, and where its bytes lie in the tar: the first one and how many."""

    name: str
    begin: int
    size: int

    def read(self, tar: Path) -> bytes:
        """Its bytes.

        Raises:
            Rejected: ``unreadable``, where the tar ends before them.
        """
        with open(tar, "rb") as file:
            file.seek(self.begin)
            body = file.read(self.size)
        if len(body) < self.size:
            raise Rejected("unreadable", f"{tar.name} ends inside {self.name}")
        return body
