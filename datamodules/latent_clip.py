"""One clip of a latent set: its record, and its latents per phase as read-only views into the shard."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.latent_format import ClipRecord, tensor_places
from streamchar.errors import DataError

Read = Callable[[int, int], NDArray[np.uint8]]


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; float16 by its exponent bits, several times faster than np.isfinite."""
    if values.dtype == np.float16:
        return not bool(((values.view(np.uint16) & 0x7C00) == 0x7C00).any())
    return bool(np.isfinite(values).all())


class LatentClip:
    """A clip by number; nothing is read before it is asked for, and nothing copied.

    Args:
        number: in the set.
        read: bytes (begin, size) of the clip's shard.
        record: (begin, size) of the JSON record.
        tensors: (begin, size) of the safetensors blob.
        has_video: whether there are pictures.
    """

    def __init__(self, number: int, read: Read, record: tuple[int, int], tensors: tuple[int, int],
                 has_video: bool) -> None:
        self.number, self.has_video = number, has_video
        self._read, self._record, self._at = read, record, tensors
        self._places: dict[str, Any] | None = None

    @cached_property
    def record(self) -> ClipRecord:
        """All about the clip but its latents.

        Raises:
            DataError: if the stored JSON is damaged.
        """
        try:
            return ClipRecord.from_json(self._read(*self._record).tobytes())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"the record of clip {self.number} is damaged ({error}); run stage=encode again") from error

    def video(self, phase: int) -> np.ndarray:
        """(chunks, C, Tv, h, w) of a phase."""
        return self._tensor(f"video.{phase}")

    def audio(self, phase: int) -> np.ndarray:
        """(latents, Ca) of a phase, from its offset on."""
        return self._tensor(f"audio.{phase}")

    def check(self, values: bool = True) -> None:
        """Look at the record, the tensors' places and, with ``values``, at every value.

        Raises:
            DataError: if a value is not finite, or what is stored is damaged.
        """
        key = self.record.key
        for name in self._located():
            if values and not all_finite(self._tensor(name)):
                raise DataError(f"clip {key} has NaN or infinite latents in {name}; run stage=encode again")

    def _located(self) -> dict[str, Any]:
        if self._places is None:
            self._places = tensor_places(self._read(*self._at))
        return self._places

    def _tensor(self, name: str) -> np.ndarray:
        try:
            dtype, shape, at = self._located()[name]
        except KeyError:
            raise DataError(f"clip {self.record.key} has no {name}; run stage=encode again") from None
        return np.frombuffer(self._read(*self._at), dtype=dtype, count=math.prod(shape), offset=at).reshape(shape)
