"""What callbacks ask of a training module. Each protocol is optional: a module without it is left alone.

The records that pass through are plain dataclasses of ``streamchar.evaluation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from streamchar.evaluation.pointer_map import PointerMap
from streamchar.evaluation.records import PointerRecord, SampleVideo

__all__ = ["Averaged", "Checkpointed", "HasFigures", "HasPointerMaps", "HasPointerRecords", "HasRoles",
           "HasStreamMemories", "Headlined", "PointerMap", "PointerRecord", "Probed", "SampleVideo", "Sampled",
           "Stateful"]


@runtime_checkable
class Stateful(Protocol):
    """An object that can be saved and restored; the state holds tensors, numbers, strings, lists and dicts only."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Averaged(Protocol):
    """A module whose weights are averaged, per role, on the generator's updates."""

    ema_roles: tuple[str, ...]

    @property
    def generator_updates(self) -> int:
        """Updates of the averaged role since the stage began."""

    def role_parameters(self, role: str) -> dict[str, Tensor]:
        """Parameters of a role by their name inside it."""


@runtime_checkable
class Checkpointed(Protocol):
    """A module that chooses what of it is stored (trained roles, not the frozen ones)."""

    def checkpoint_state_dict(self, keep: bool = True) -> dict[str, Any]:
        """``weights`` (names start with the role), ``optimizers`` (states by role and parameter), ``counters``, and
        ``extra``: what belongs to this rank alone. All ranks ask, one keeps the whole tensors."""

    def load_checkpoint_state(self, state: dict[str, Any]) -> None:
        """Restore it; ``extra`` is empty where the number of ranks has changed."""


@runtime_checkable
class HasFigures(Protocol):
    """A module that keeps the figures of its last step, those alone that this step had."""

    step_figures: dict[str, float]


@runtime_checkable
class HasRoles(Protocol):
    """A module whose models can be told apart by what they occupy."""

    def bytes_by_role(self) -> dict[str, int]:
        """Bytes on this rank: of each model its weights, and of what learns its optimiser's state."""


@runtime_checkable
class HasPointerRecords(Protocol):
    """A module that notes, while it validates, where the pointer was on held-out streams; the callback empties it."""

    pointer_records: list[PointerRecord]


@runtime_checkable
class HasPointerMaps(Protocol):
    """A module that keeps, from its last validation, where the pointer looked while streams were heard."""

    pointer_maps: list[PointerMap]


@runtime_checkable
class HasStreamMemories(Protocol):
    """A module with fixed validation streams whose memory (sink, motion, sound, pointer) outlives a validation."""

    def stream_memories(self) -> Mapping[str, Stateful]:
        """Memory by stream name; the objects exist from ``on_train_start`` on, so that they can be restored."""


@runtime_checkable
class Probed(Protocol):
    """A module that can run a fixed stream, to time it."""

    chunk_seconds: float

    def probe_stream(self, chunks: int) -> Iterator[Any]:
        """Yield after each of ``chunks`` chunks of the same fixed stream, decoded as a user would get them."""


@runtime_checkable
class Sampled(Protocol):
    """A module that can show what it makes, always from the same prompts and noise."""

    def sample_videos(self, averaged: Callable[[], AbstractContextManager[None]] | None) -> list[SampleVideo]:
        """Clips to write as mp4: reference | teacher | student | averaged student, as far as the stage has them.

        ``averaged``: a context in which the trained weights are the averaged ones; None: there are none.
        """


@runtime_checkable
class Headlined(Protocol):
    """A module that names the held-out figures by which its stage is judged (lower is better)."""

    headline_metrics: tuple[str, ...]
