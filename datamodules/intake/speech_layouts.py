"""Speech corpora as they are published: LibriSpeech, LJSpeech, Emilia (tars or unpacked), or sound with text beside it.

A folder may mix them: every sound takes its text from the file beside it, else from the table of its corpus.
"""

from __future__ import annotations

import tarfile
from pathlib import Path, PurePosixPath

from datamodules.intake.sources import NOT_RECORDINGS, Source, recordings, slug, speaker_in, speaker_of
from datamodules.intake.tar_member import TarMember
from datamodules.intake.transcripts import find_transcript


def list_speech(root: Path) -> list[Source]:
    """All sounds below ``root`` with their text; the speaker as the corpus names it."""
    libri, lj = _libri_texts(root), _lj_texts(root)
    rows = []
    for path in recordings(root):
        if path.suffix == ".tar":
            rows += _pairs(path)
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


def _pairs(tar: Path) -> list[Source]:
    """Emilia as published: ``NAME.mp3`` and ``NAME.json`` in a tar (WebDataset), in any order.

    What follows a damaged header is lost: the tar itself is then one more source, which is reported when it is read.
    """
    sounds: dict[str, TarMember] = {}
    texts: dict[str, tuple[TarMember, str]] = {}
    rows = []
    try:
        with tarfile.open(tar, "r:") as members:
            for info in members:
                member, (stem, kind) = TarMember(info.name, info.offset_data, info.size), _split(info.name)
                if info.isfile() and kind == ".json":
                    body = members.extractfile(info).read()  # type: ignore[union-attr]
                    texts[stem] = member, speaker_in(body) or slug(tar.stem)
                elif info.isfile() and kind not in NOT_RECORDINGS:
                    sounds[stem] = member
    except (tarfile.TarError, OSError):
        rows.append(Source("", tar, slug(tar.stem)))
    for stem, sound in sounds.items():
        text, speaker = texts.get(stem, (None, slug(tar.stem)))
        rows.append(Source("", tar, speaker, tar if text else None, None, sound, text))
    return rows


def _split(name: str) -> tuple[str, str]:
    """A member's name without its ending, and the ending."""
    path = PurePosixPath(name)
    return str(path.with_suffix("")), path.suffix.lower()


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
