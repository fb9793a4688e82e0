"""Relative paths: from the command line they start where the user stands, otherwise at the checkout's root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.config.fields import lookup
from pipelines.config.places import CHECKOUT, ships
from pipelines.config.schema import RunConfig

PATH_KEYS = (
    "root", "data.latents", "data.shards", "data.val_shards", "data.speech_shards", "codec.video.path",
    "codec.audio.path", "orchestrator.pretrained", "denoiser.pretrained", "stream.reference", "stream.voice",
    "stream.out", "evaluate.parts", "evaluate.folder", "export.out", "report.out", "intake.input", "intake.detector",
    "intake.vad", "intake.asr", "intake.aligner", "student.weights",
)
"""Keys whose text names a file or folder."""
NAMES = ("init", "init_speech")
"""Keys whose text is the name of a character that ships, or a folder."""
_NOT_PATHS = ("none", "auto", "pipe:")


def anchor_paths(cfg: RunConfig, from_here: set[str]) -> None:
    """Make every path absolute in place; ``from_here``: keys that the command line gave."""
    for key in (*PATH_KEYS, *NAMES):
        if lookup(RunConfig, key) is None:
            continue
        *parents, last = key.split(".")
        group: Any = cfg
        for part in parents:
            group = getattr(group, part)
        base = Path.cwd() if key in from_here else CHECKOUT
        given = getattr(group, last)
        anchored = _anchored(given, base)
        if key not in NAMES or (given and not ships(given) and Path(anchored).exists()):
            setattr(group, last, anchored)


def _anchored(value: Any, base: Path) -> Any:
    if isinstance(value, dict):
        return {key: _anchored(inner, base) for key, inner in value.items()}
    if isinstance(value, list):
        return [_anchored(item, base) for item in value]
    if not isinstance(value, str) or not value or value.startswith(_NOT_PATHS) or "://" in value:
        return value
    path = Path(value).expanduser()
    return str(path if path.is_absolute() else (base / path))
