"""Videos and pictures inside the page while they fit, else by their path from it."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

_KINDS = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg", ".wav": "audio/wav"}


@dataclass
class Media:
    """Attribute values for ``src=``; ``left``: bytes that may still be embedded."""

    page: Path
    left: int
    embedded: int = 0
    linked: int = 0

    def addresses(self, paths: Iterable[Path]) -> dict[Path, str]:
        """All of ``paths`` that exist, embedded together or linked together, so that what stands side by side plays
        wherever the page lies or nowhere."""
        there = {path: path.stat().st_size for path in dict.fromkeys(paths) if path.is_file()}
        need = sum(size * 4 // 3 for size in there.values())  # base64
        if need > self.left:
            self.linked += len(there)
            return {path: escape(quote(os.path.relpath(path, self.page.parent))) for path in there}
        self.left -= need
        self.embedded += len(there)
        return {path: f"data:{_KINDS[path.suffix]};base64,{b64encode(path.read_bytes()).decode()}" for path in there}
