"""Weights as TensorFlow.js stores them: a JSON manifest beside raw binary files.

The manifest is a list of groups ``{"paths": [...], "weights": [...]}``; the files of a group, joined, hold its weights
one after another in the manifest's order, little-endian. A weight with ``quantization: {dtype, scale, min}`` is stored
as unsigned integers q and means q * scale + min.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamchar.errors import InputError


def read_tfjs_weights(folder: str | Path) -> dict[str, NDArray[np.float32]]:
    """The arrays of a folder that holds one ``*manifest.json``, by name, in TensorFlow's axis order.

    Raises:
        InputError: if there is not exactly one manifest, a file is missing or has another length than it says.
    """
    found = sorted(Path(folder).glob("*manifest.json"))
    if len(found) != 1:
        raise InputError(f"{folder} holds {len(found)} files named *manifest.json, exactly one is expected; give the "
                         "folder of a TensorFlow.js model")
    out: dict[str, NDArray[np.float32]] = {}
    try:
        for group in json.loads(found[0].read_text()):
            data = b"".join((found[0].parent / name).read_bytes() for name in group["paths"])
            at = 0
            for entry in group["weights"]:
                out[entry["name"]], at = _array(entry, data, at)
            if at != len(data):
                raise ValueError(f"{len(data)} bytes of weights where the manifest names {at}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"the weights of {found[0]} cannot be read: {error}; fetch the folder again") from error
    return out


def _array(entry: dict[str, Any], data: bytes, at: int) -> tuple[NDArray[np.float32], int]:
    """One weight that begins at byte ``at``, and the byte behind it."""
    packed = entry.get("quantization")
    kind = np.dtype(packed["dtype"] if packed else entry["dtype"]).newbyteorder("<")
    raw = np.frombuffer(data, kind, math.prod(entry["shape"]), at)
    values = raw * np.float32(packed["scale"]) + np.float32(packed["min"]) if packed else raw
    return values.astype(np.float32).reshape(entry["shape"]), at + raw.nbytes
