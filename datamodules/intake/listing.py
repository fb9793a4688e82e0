"""Which recordings a folder holds, as a recipe reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.intake.bundle import Bundle
from datamodules.intake.sources import Source, distinct_keys, slug
from datamodules.intake.speech_layouts import list_speech
from datamodules.intake.video_layouts import list_grid, list_videos
from streamchar.errors import DataError, InputError

LISTERS: dict[str, Callable[[Path], Sequence[Bundle | Source]]] = {
    "videos": list_videos, "grid": list_grid, "speech": list_speech}


def list_sources(recipe: str, folder: str | None) -> list[Bundle | Source]:
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
    return sorted(_named(found, root), key=lambda s: s.key)


def _named(found: Sequence[Bundle | Source], root: Path) -> list[Bundle | Source]:
    """With keys from the paths below ``root``."""
    paths = list(dict.fromkeys(s.path.relative_to(root) for s in found))  # bundles share their tar's
    keys = distinct_keys([slug("-".join(p.with_suffix("").parts)) for p in paths], [str(p) for p in paths])
    key_of = dict(zip(paths, keys, strict=True))
    return [s.named(key_of[s.path.relative_to(root)]) for s in found]
