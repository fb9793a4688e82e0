"""Transcripts as they lie beside recordings: ``.json``, ``.align`` (GRID), ``.vtt``, ``.srt`` or ``.txt``.

All become cues: a text, when it is said as far as the file tells, and the times of its words where it tells those.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.intake.rejection import Rejected
from datamodules.intake.tar_member import TarMember
from streamchar.segmentation import join_written, normalise_words
from streamchar.transcript import SILENCE_MARKS

ALIGN_HZ = 25000


@dataclass(frozen=True)
class Token:
    """A word as it is written, marks included, with its seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Cue:
    """A piece of transcript: said between ``start`` and ``end`` seconds (``end`` infinite: to the recording's end).
    ``tokens``: its words with their times, or None where the file does not tell."""

    text: str
    start: float = 0.0
    end: float = math.inf
    tokens: tuple[Token, ...] | None = None


def find_transcript(recording: Path) -> Path | None:
    """The transcript beside a recording: same name, other ending; the one that tells most where there are several."""
    return next((p for kind in READERS if (p := recording.with_suffix(kind)).is_file() and p != recording), None)


def read_transcript(path: Path, member: TarMember | None = None) -> list[Cue]:
    """The cues of a transcript (or of the ``member`` of a tar) in order; those without a word are left out.

    Raises:
        Rejected: ``bad transcript``, if the file is not what its ending says or holds no word.
    """
    name = member.name if member else path.name
    try:
        body = member.read(path) if member else path.read_bytes()
        cues = READERS[Path(name).suffix.lower()](body.decode("utf-8-sig"))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise Rejected("bad transcript", f"{name}: {error}") from error
    cues = [c for c in cues if normalise_words(c.text)]
    if not cues:
        raise Rejected("bad transcript", f"{name} holds no word")
    return sorted(cues, key=lambda c: c.start)


def timed_cue(tokens: list[Token]) -> Cue:
    """One cue of words whose times are known.

    Raises:
        ValueError: at times that are not finite or go backwards.
    """
    last = 0.0
    for t in tokens:
        if not (math.isfinite(t.start) and math.isfinite(t.end)) or t.start < last - 0.05 or t.end < t.start:
            raise ValueError(f"word {t.text!r} at {t.start}..{t.end} s is out of order")
        last = t.start
    if not tokens:
        return Cue("")
    return Cue(join_written(t.text for t in tokens), tokens[0].start, tokens[-1].end, tuple(tokens))


def _txt(body: str) -> list[Cue]:
    return [Cue(" ".join(body.split()))]


def _align(body: str) -> list[Cue]:
    """GRID: ``start end word`` in units of 1/25000 s."""
    rows = [line.split() for line in body.splitlines() if line.strip()]
    return [timed_cue([Token(word, int(start) / ALIGN_HZ, int(end) / ALIGN_HZ) for start, end, word in rows
                       if word.lower() not in SILENCE_MARKS])]


_TIMES = re.compile(r"((?:\d+:)?\d+:\d+[.,]\d+)\s*-->\s*((?:\d+:)?\d+:\d+[.,]\d+)")
_SOUNDS = re.compile(r"\[[^\]]*\]|\([^)]*\)|♪")


def _subtitles(body: str) -> list[Cue]:
    """SubRip and WebVTT: blocks whose text follows a line of times; tags, sounds in brackets and dashes go."""
    cues = []
    for block in re.split(r"\n\s*\n", body.replace("\r\n", "\n")):
        lines = block.strip().split("\n")
        at = next((i for i, line in enumerate(lines) if _TIMES.search(line)), None)
        if at is None:
            continue
        start, end = (_seconds(t) for t in _TIMES.search(lines[at]).groups())  # type: ignore[union-attr]
        text = html.unescape(re.sub(r"<[^>]*>|\{[^}]*\}", "", " ".join(lines[at + 1:])))
        text = re.sub(r"(^|\s)[-–]\s", " ", _SOUNDS.sub(" ", text))
        cues.append(Cue(" ".join(text.split()), start, end))
    if not cues:
        raise ValueError("no line of times (00:00:01,000 --> 00:00:02,000)")
    return cues


def _seconds(text: str) -> float:
    parts = [float(p) for p in text.replace(",", ".").split(":")]
    return sum(p * 60**i for i, p in enumerate(reversed(parts)))


def _json(body: str) -> list[Cue]:
    """``words`` with times, or ``segments`` that have them (Whisper), or ``text`` alone (Emilia)."""
    data = json.loads(body)
    if isinstance(data, list):
        data = {"segments": data} if data and "text" in data[0] else {"words": data}
    if data.get("words"):
        return [timed_cue(_tokens(data["words"]))]
    if data.get("segments"):
        return [_segment(s) for s in data["segments"]]
    return _txt(str(data["text"]))


def _segment(row: dict[str, Any]) -> Cue:
    if row.get("words"):
        return timed_cue(_tokens(row["words"]))
    return Cue(str(row["text"]).strip(), float(row["start"]), float(row["end"]))


def _tokens(rows: list[dict[str, Any]]) -> list[Token]:
    found = []
    for row in rows:
        text = str(next(row[k] for k in ("w", "word", "text") if k in row)).strip()
        if text.lower() not in SILENCE_MARKS:
            found.append(Token(text, float(row["start"]), float(row["end"])))
    return found


READERS: dict[str, Callable[[str], list[Cue]]] = {
    ".json": _json, ".align": _align, ".vtt": _subtitles, ".srt": _subtitles, ".txt": _txt}
"""By ending, in the order of preference."""
