"""Folders of videos: any, or the GRID corpus as it is published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from datamodules.intake.sources import Source, recordings, speaker_of
from datamodules.intake.transcripts import find_transcript
from streamchar.evaluation.recogniser import GRID_SLOTS

DIGITS = GRID_SLOTS["digit"]


def list_videos(root: Path) -> Iterator[Source]:
    """Every file below ``root`` that is not text or a picture, with the transcript beside it."""
    for path in recordings(root):
        transcript = find_transcript(path)
        yield Source("", path, speaker_of(path, root, transcript), transcript)


def list_grid(root: Path) -> Iterator[Source]:
    """GRID as published: ``s1/bbaf2n.mpg``, and ``.align`` beside it or below ``align/`` or ``alignments/``; where
    there is none, the name says the sentence."""
    aligned = {(p.parent.name, p.stem): p for p in root.rglob("*.align")}
    alone = {p.stem: p for p in root.rglob("*.align")}
    for path in recordings(root):
        speaker = path.parent.name if path.parent != root else "s1"
        align = path.with_suffix(".align")
        found = align if align.is_file() else aligned.get((speaker, path.stem), alone.get(path.stem))
        yield Source("", path, speaker, found, None if found else grid_sentence(path.stem))


def grid_sentence(name: str) -> str | None:
    """``bbaf2n`` -> "bin blue at f two now"; None where a name is no sentence.

    The letters are the words' first ones; digits are written (``z``: zero).
    """
    slots = list(GRID_SLOTS.values())
    if len(name) != len(slots):
        return None
    words = []
    for letter, choices in zip(name.lower(), slots, strict=True):
        digit = DIGITS[int(letter)] if letter.isdigit() else letter
        words.append(next((w for w in choices if w.startswith(digit)), None))
    return " ".join(w for w in words if w) if all(words) else None
