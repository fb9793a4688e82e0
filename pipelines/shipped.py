"""Exported characters by folder or by name: those in ``pretrained/`` of the checkout ship with it."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.places import SHIPPED, ships
from streamchar.errors import InputError
from streamchar.hub.pretrained import PROMPT


def model_folder(given: str, key: str = "model") -> Path:
    """The folder of an exported character.

    Args:
        given: the name of one in ``pretrained/``, which means that one wherever it is given, or a folder (``./NAME``
            where one that ships has its name).
        key: the setting that gave it.

    Raises:
        InputError: if there is no such model.
    """
    folder = SHIPPED / given if ships(given) else Path(given).expanduser()
    if (folder / "config.json").is_file():
        return folder.absolute()
    names = sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))
    raise InputError(f"{key}={given}: neither a folder with config.json (stage=export out=DIR makes one) nor one of "
                     f"those that ship: {', '.join(names) or 'none'}")


def carried_prompt(folder: Path) -> tuple[Path | None, Path | None]:
    """(picture, sound file) that an export carries, each None where it carries none."""
    face, voice = (folder / name for name in PROMPT)
    return face if face.is_file() else None, voice if voice.is_file() else None
