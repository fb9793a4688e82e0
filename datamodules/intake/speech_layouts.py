"""Speech corpora as they are published: LibriSpeech, LJSpeech, Emilia (tars or unpacked), or sound with text beside it.

A folder may mix them: every sound takes its text from the file beside it, else from the table of its corpus.
"""

from __future__ import annotations

from pathlib import Path

from datamodules.intake.bundle import Bundle, bundles
from datamodules.intake.sources import Source, recordings, speaker_of
from datamodules.intake.transcripts import find_transcript


def list_speech(root: Path) -> list[Bundle | Source]:
    """All sounds below ``root`` with their text; the speaker as the corpus names it."""
    libri, lj = _libri_texts(root), _lj_texts(root)
    rows: list[Bundle | Source] = []
    for path in recordings(root):
        if path.suffix == ".tar":
            rows += bundles(path)
            continue
        beside = find_transcript(path)  # Emilia: NAME.json beside NAME.mp3, with text and speaker
        if beside is not None:
            rows.append(Source("", path, speaker_of(path, root, beside), beside))
        elif path.stem in libri:
            rows.append(Source("", path, f"libri-{path.stem.split('-')[0]}", text=libri[path.stem]))
        elif path.stem in lj:
            rows.append(Source("", path, "lj", text=lj[path.stem]))
        else:
            rows.append(Source("", path, speaker_of(path, root, None)))
    return rows


def _libri_texts(root: Path) -> dict[str, str]:
    """``SPEAKER-CHAPTER.trans.txt``: lines of ``SPEAKER-CHAPTER-NUMBER TEXT``."""
    rows = (line.partition(" ") for path in sorted(root.rglob("*.trans.txt"))
            for line in path.read_text(encoding="utf-8").splitlines())
    return {name: text.strip() for name, _, text in rows if text.strip()}


def _lj_texts(root: Path) -> dict[str, str]:
    """``metadata.csv``: lines of ``NAME|TEXT|TEXT WITH NUMBERS SPELLED OUT``, the last preferred."""
    rows = (line.split("|") for path in sorted(root.rglob("metadata.csv"))
            for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0]: row[-1].strip() for row in rows if len(row) > 1 and row[-1].strip()}
