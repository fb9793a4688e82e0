"""Where things of the checkout are; everything else is given by the configuration."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
"""Root of the checkout: the base of relative paths in defaults and presets."""
CONF = CHECKOUT / "conf"
"""Presets and groups."""
SHIPPED = CHECKOUT / "pretrained"
"""Exported characters that ship with it."""
LOCK = CHECKOUT / "requirements.lock"
"""Every version of the environment."""


def choices(group: str) -> list[str]:
    """Names that ``group=NAME`` accepts: the files of ``conf/GROUP``, dots in the group being folders."""
    return sorted(path.stem for path in (CONF / group.replace(".", "/")).glob("*.yaml"))


def ships(given: str) -> bool:
    """Whether ``given`` is the bare name of a character that ships; ``./NAME`` is a folder where the user stands."""
    return Path(given).name == given and (SHIPPED / given / "config.json").is_file()
