"""StreamChar: a character speaks a transcript, as video and sound together, chunk after chunk, in real time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamchar.hub import from_pretrained

__all__ = ["from_pretrained"]


def __getattr__(name: str) -> Any:
    """``streamchar.from_pretrained`` without importing torch for those who only want an error class."""
    if name == "from_pretrained":
        from streamchar.hub import from_pretrained

        return from_pretrained
    raise AttributeError(f"module 'streamchar' has no attribute {name!r}")
