"""Speech corpora as they are published: LibriSpeech, LJSpeech, Emilia (tars or unpacked), or sound with text beside it.

A folder may mix them: every sound takes its text from the file beside it, else from the table of its corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from datamodules.intake.bundle import Bundle, bundles
from datamodules.intake.file_bundle import FileBundle, bundled
from datamodules.intake.sources import Source, recordings
from datamodules.intake.transcripts import find_transcript
from streamchar.errors import DataError


def list_speech(root: Path) -> Iterator[Source | Bundle | FileBundle]:
    """All sounds below ``root`` with their text; the speaker as the corpus names it.

    Raises:
        DataError: a corpus' table of texts cannot be read.
    """
    return bundled(_sounds(root), root)


def _sounds(root: Path) -> Iterator[Source | Bundle]:
    """Those whose corpus names no speaker have none yet."""
    libri, lj = lru_cache(maxsize=4)(_libri_texts), lru_cache(maxsize=16)(_lj_texts)
    for path in recordings(root):
        if path.suffix == ".tar":
            yield from bundles(path)
            continue
        beside = find_transcript(path)  # Emilia: NAME.json beside NAME.mp3, with text and speaker
        if beside is not None:
            yield Source("", path, "", beside)
        elif text := libri(path.with_name(f"{path.stem.rpartition('-')[0]}.trans.txt")).get(path.stem):
            yield Source("", path, f"libri-{path.stem.split('-')[0]}", text=text)
        elif text := next((t for f in _folders(path, root) if (t := lj(f / "metadata.csv").get(path.stem))), None):
            yield Source("", path, "lj", text=text)
        else:
            yield Source("", path, "")


def _libri_texts(table: Path) -> dict[str, str]:
    """``SPEAKER-CHAPTER.trans.txt`` beside its sounds: lines of ``SPEAKER-CHAPTER-NUMBER TEXT``."""
    rows = (line.partition(" ") for line in _lines(table))
    return {name: text.strip() for name, _, text in rows if text.strip()}


def _folders(path: Path, root: Path) -> list[Path]:
    """In which ``path`` lies, the nearest first, up to ``root``."""
    folders = list(path.parents)
    return folders[:folders.index(root) + 1]


def _lj_texts(table: Path) -> dict[str, str]:
    """``metadata.csv`` beside or above its sounds: lines of ``NAME|TEXT|TEXT WITH NUMBERS SPELLED OUT``, the last
    preferred."""
    rows = (line.split("|") for line in _lines(table))
    return {row[0]: row[-1].strip() for row in rows if len(row) > 1 and row[-1].strip()}


def _lines(table: Path) -> list[str]:
    """Of a table; none where there is no such file."""
    try:
        return table.read_text(encoding="utf-8-sig").splitlines() if table.is_file() else []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{table} cannot be read ({error}); expected the corpus' texts in UTF-8: convert the file, or "
                        "take it away to put its recordings aside as without text") from error
