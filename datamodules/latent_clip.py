"""One clip of a latent set: its record, and its latents per phase as read-only views into the shard."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.clip_facts import ClipFacts
from datamodules.latent_format import ClipRecord, tensor_places
from streamchar.clock import ChunkClock
from streamchar.errors import DataError

Read = Callable[[int, int], NDArray[np.uint8]]
Whole = Callable[[], NDArray[np.uint8]]


def all_finite(values: np.ndarray) -> bool:
    """Whether no value is NaN or infinite; float16 by its exponent bits, several times faster than np.isfinite."""
    if values.dtype == np.float16:
        return not bool(((values.view(np.uint16) & 0x7C00) == 0x7C00).any())
    return bool(np.isfinite(values).all())


class LatentClip:
    """A clip by number; nothing is read before it is asked for, and nothing copied.

    Args:
        number: in the set.
        whole: all bytes of the clip's shard.
        read: bytes (begin, size) of it.
        record: (begin, size) of the JSON record.
        tensors: (begin, size) of the safetensors blob.
        has_video: whether there are pictures.
        keep: keep the views that were asked for; they keep the shard's map open.
    """

    def __init__(self, number: int, whole: Whole, read: Read, record: tuple[int, int],
                 tensors: tuple[int, int], has_video: bool, keep: bool = False) -> None:
        self.number, self.has_video, self._keep = number, has_video, keep
        self._views: dict[str, np.ndarray] = {}
        self._whole, self._read, self._record, self._at = whole, read, record, tensors
        self._places: dict[str, Any] | None = None
        self._facts: ClipFacts | None = None
        self.members: dict[tuple[str, bool], NDArray[np.uint32]] = {}  # see LatentStore.members

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

    def facts(self, clock: ChunkClock) -> ClipFacts:
        """What follows from the record and the run's clock (one per process), worked out once."""
        if self._facts is None:
            self._facts = ClipFacts.of(self.record, len(self.audio(0)), clock)
        return self._facts

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
        """Type, shape and first byte in the shard of each tensor."""
        if self._places is None:
            begin = self._at[0]
            inside = tensor_places(self._read(*self._at))
            self._places = {name: (dtype, shape, begin + at) for name, (dtype, shape, at) in inside.items()}
        return self._places

    def _tensor(self, name: str) -> np.ndarray:
        view = self._views.get(name)
        if view is None:
            view = self._view(name)
            if self._keep:
                self._views[name] = view
        return view

    def _view(self, name: str) -> np.ndarray:
        try:
            dtype, shape, at = (self._places or self._located())[name]
        except KeyError:
            raise DataError(f"clip {self.record.key} has no {name}; run stage=encode again") from None
        return np.ndarray(shape, dtype, self._whole(), at)
