"""Which recordings a folder holds, as a recipe reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from datamodules.intake.bundle import Bundle
from datamodules.intake.file_bundle import FileBundle
from datamodules.intake.keys import Hashes, distinct_key, slug
from datamodules.intake.sources import Source
from datamodules.intake.speech_layouts import list_speech
from datamodules.intake.spool import Spool
from datamodules.intake.video_layouts import list_grid, list_videos
from streamchar.errors import DataError, InputError

Work = Source | Bundle | FileBundle
LISTERS: dict[str, Callable[[Path], Iterable[Work]]] = {
    "videos": list_videos, "grid": list_grid, "speech": list_speech}


class Listing:
    """The recordings below ``root`` as they were found once, in order of their paths; each key occurs once.

    They lie in a :class:`~datamodules.intake.spool.Spool`, and 8 bytes of each in memory.

    Attributes:
        count: of recordings; those of a bundle count each.
    """

    def __init__(self, found: Iterable[Work], root: Path, folder: Path | None = None) -> None:
        self._root, self._rows = root, Spool[Work](folder)
        self.count = 0
        seen, last = Hashes(), None
        for row in found:
            self._rows.append(row)
            self.count += row.count
            for path in row.paths:
                if path != last:  # bundles share their tar's, and follow one another
                    seen.add(self._slug(path))
                last = path
        self._repeated = seen.repeated()

    def __iter__(self) -> Iterator[Work]:
        for row in self._rows:
            yield row.named(self._key)

    def _key(self, path: Path) -> str:
        return distinct_key(self._slug(path), str(path.relative_to(self._root)), self._repeated)

    def _slug(self, path: Path) -> str:
        return slug("-".join(path.relative_to(self._root).with_suffix("").parts))


def list_sources(recipe: str, folder: str | None, scratch: Path | None = None) -> Listing:
    """The recordings of ``folder`` as ``recipe`` (videos, grid or speech) finds them; ``scratch``: see ``Spool``.

    Raises:
        InputError: no folder given; DataError: it does not exist, cannot be read or holds nothing to read.
    """
    if not folder:
        raise InputError(f"recipe={recipe} needs input=DIR, the folder of the recordings")
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"input={folder} is no folder; give the folder that holds the recordings")
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise DataError(f"input={folder} cannot be read: {error.strerror}; make it readable for this user, or give "
                        "another folder") from error
    found = Listing(LISTERS[recipe](root), root, scratch)
    if not found.count:
        raise DataError(f"input={folder} holds no recording; give the folder with the video or sound files")
    return found
