"""Characters as folders."""

from streamchar.hub.pretrained import Exported, export_character, from_pretrained

__all__ = ["Exported", "export_character", "from_pretrained"]
