"""Tensors of a local model folder, in one file or in shards with an index, read one at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from streamchar.errors import CheckpointError


class StoredTensors:
    """The safetensors of a folder by name; files are mapped into memory, not read.

    Raises:
        CheckpointError: if there are none, or a file is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files: dict[str, Any] = {}
        for path in _files(self.folder):
            try:
                file = _open(path)
                self._files |= dict.fromkeys(file.keys(), file)
            except Exception as error:
                raise CheckpointError(f"{path} cannot be read ({error}); copy the folder again") from error

    def __iter__(self) -> Any:
        return iter(self._files)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        """Told from the file's header."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)


def _open(path: Path) -> Any:
    from safetensors import safe_open

    return safe_open(str(path), framework="pt")


def _files(folder: Path) -> list[Path]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if indices:
        try:
            names = sorted(set(json.loads(indices[0].read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{indices[0]} is no index of shards ({error}); copy the folder again") from error
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {indices[0].name} lists; copy the "
                                  "folder again")
        return [folder / name for name in names]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        held = ", ".join(path.name for path in found) or "none"
        raise CheckpointError(f"{folder} must hold one .safetensors file, or shards with their index; it holds {held}")
    return found
