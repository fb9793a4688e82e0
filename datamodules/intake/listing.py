"""Which recordings a folder holds, as a recipe reads it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from datamodules.intake.sources import Source, slug
from datamodules.intake.speech_layouts import list_speech
from datamodules.intake.video_layouts import list_grid, list_videos
from streamchar.errors import DataError, InputError

LONGEST_KEY = 80
"""Characters; names in a tar have at most 100."""
LISTERS: dict[str, Callable[[Path], list[Source]]] = {"videos": list_videos, "grid": list_grid, "speech": list_speech}


def list_sources(recipe: str, folder: str | None) -> list[Source]:
    """The recordings of ``folder`` as ``recipe`` (videos, grid or speech) finds them, by key.

    Raises:
        InputError: no folder given; DataError: it does not exist or holds nothing to read.
    """
    if not folder:
        raise InputError(f"recipe={recipe} needs input=DIR, the folder of the recordings")
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"input={folder} is no folder; give the folder that holds the recordings")
    found = LISTERS[recipe](root)
    if not found:
        raise DataError(f"input={folder} holds no recording; give the folder with the video or sound files")
    return sorted(_unique(found, root), key=lambda s: s.key)


def _unique(sources: list[Source], root: Path) -> Iterable[Source]:
    """Keys from the paths below ``root``; paths that would share one, and long ones, get a number of their own."""
    relative = [(s.path.with_suffix("") / s.member.name if s.member else s.path).relative_to(root) for s in sources]
    keys = [slug("-".join(r.with_suffix("").parts)) for r in relative]
    shared = {key for key, count in Counter(keys).items() if count > 1}
    for source, path, key in zip(sources, relative, keys, strict=True):
        number = f"-{zlib.crc32(str(path).encode()):08x}"
        own = key if key not in shared and len(key) <= LONGEST_KEY else key[:LONGEST_KEY - len(number)] + number
        yield replace(source, key=own)
