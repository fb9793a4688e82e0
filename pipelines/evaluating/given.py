"""Clips of a folder, whoever made them: read, checked, and scored like our own."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import Progress

from pipelines.evaluating.material import Rendering, Subject
from pipelines.free_memory import check_memory
from streamchar.clock import ChunkClock
from streamchar.errors import InputError
from streamchar.streaming.reading import picture_bytes, read_clip
from streamchar.transcript import normalise_words

log = logging.getLogger(__name__)

SAMPLE_RATE = 16000


def given_clips(folder: Path, clock: ChunkClock, bar: Progress) -> tuple[list[Subject], ChunkClock]:
    """The clips of ``folder`` as column ``given``, and the clock with their frame rate.

    A clip is ``KEY.mp4`` with its text in ``KEY.json`` (``text``, and optionally ``speaker``) or ``KEY.txt``, and
    perhaps the reference picture ``KEY.png``; without one its first frame is the reference. A clip that cannot be read
    or has no words in its text is left out and said.

    Raises:
        InputError: where there is no folder, no usable clip, clips of different frame rates, or too little memory.
    """
    check_folder(folder)
    paths = sorted(folder.glob("*.mp4"))
    check_memory(sum(map(picture_bytes, paths)), f"pictures of the {len(paths)} clips of {folder}",
                 "score them in several folders")
    subjects, left_out = [], []
    rates: dict[float, str] = {}
    for path in bar.track(paths, description="reading clips"):
        try:
            subject, fps = _read(path)
        except InputError as error:
            left_out.append(f"{path.name}: {error}")
            continue
        rates.setdefault(fps, path.name)
        subjects.append(subject)
    for reason in left_out:
        log.warning("left out: %s", reason)
    if not subjects:
        raise InputError(f"clips={folder}: none of {len(paths)} mp4 files can be scored"
                         + (f" ({left_out[0]})" if left_out else "; expected KEY.mp4 with KEY.txt or KEY.json"))
    if len(rates) > 1:
        raise InputError("clips of one folder must have one frame rate, got "
                         + ", ".join(f"{fps:g} fps ({name})" for fps, name in rates.items())
                         + "; score each rate's clips in a folder of their own, or convert them")
    return subjects, replace(clock, fps=next(iter(rates)), sample_rate=SAMPLE_RATE)


def check_folder(folder: Path) -> None:
    """Raises InputError where ``folder`` is none, or holds no mp4."""
    if not folder.is_dir():
        raise InputError(f"clips={folder} is no folder; give one with KEY.mp4 and KEY.txt or KEY.json")
    if not any(folder.glob("*.mp4")):
        raise InputError(f"clips={folder} holds no mp4; expected KEY.mp4 with KEY.txt or KEY.json")


def _read(path: Path) -> tuple[Subject, float]:
    told = _told(path)
    text = str(told["text"]).strip()
    if not normalise_words(text):
        raise InputError("its text holds no words")
    frames, sound, fps = read_clip(path, SAMPLE_RATE)
    picture = path.with_suffix(".png")
    reference = _picture(picture, frames) if picture.is_file() else frames[0]
    size = int(len(frames) / fps * SAMPLE_RATE)
    take = Rendering(frames, np.pad(sound[:size], (0, max(size - len(sound), 0))))
    speaker = str(told.get("speaker", ""))
    return Subject(path.stem, text, reference, {"given": take}, speaker=speaker, look=speaker), fps


def _told(path: Path) -> dict[str, object]:
    """What ``KEY.json`` or ``KEY.txt`` says."""
    as_json, as_text = path.with_suffix(".json"), path.with_suffix(".txt")
    try:
        if as_json.is_file():
            told = json.loads(as_json.read_text(encoding="utf-8-sig"))  # some editors begin a file with its mark
            if isinstance(told, dict) and isinstance(told.get("text"), str):
                return told
            raise InputError(f"{as_json.name} holds no text; expected {{\"text\": ...}}")
        if as_text.is_file():
            return {"text": as_text.read_text(encoding="utf-8")}
    except (ValueError, OSError) as error:
        raise InputError(f"its text cannot be read: {error}") from error
    raise InputError(f"there is no {as_json.name} or {as_text.name} with its text")


def _picture(path: Path, frames: np.ndarray) -> np.ndarray:
    """The reference at the frames' size."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((frames.shape[2], frames.shape[1]), Image.Resampling.LANCZOS))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path.name} is no picture: {error}") from error
