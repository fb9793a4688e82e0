"""Characters as folders."""

from streamchar.hub.pretrained import export_character, from_pretrained

__all__ = ["export_character", "from_pretrained"]
