"""Several streams, each at a chunk number of its own, generated as one batch: they join and leave between chunks.

The chunk loop sees one memory; every stream keeps its own, with its own seed, so that its noise and its state do not
depend on whom it is generated with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from streamchar.diffusion.noise import Draws
from streamchar.rollout.memory import StreamMemory
from streamchar.types import Conditions, Latents, Text


@dataclass(frozen=True)
class JoinedKey:
    """Noise keys of several streams, drawn from one after another."""

    keys: tuple[Draws, ...]

    def at(self, **changes: object) -> JoinedKey:
        """As :meth:`NoiseKey.at`, of every stream."""
        return JoinedKey(tuple(key.at(**changes) for key in self.keys))

    def normal(self, shape: Sequence[int], name: str = "", device: torch.device | str = "cpu") -> Tensor:
        """As :meth:`NoiseKey.normal`, (B, *shape)."""
        return torch.cat([key.normal(shape, name, device) for key in self.keys])

    def like(self, latents: Latents, name: str = "") -> Latents:
        """As :meth:`NoiseKey.like`."""
        device = latents.video.device
        return Latents(self.normal(latents.video.shape[1:], name + "video", device),
                       self.normal(latents.audio.shape[1:], name + "audio", device))


class JoinedMemory:
    """The memories of streams that are generated together; each holds one stream.

    Args:
        members: at least one, on one device and of one character.
    """

    def __init__(self, members: Sequence[StreamMemory]) -> None:
        self.members = list(members)

    @property
    def chunks(self) -> list[int]:
        """Chunk number of each stream."""
        return [m.chunk for m in self.members]

    def noise(self, role: str, iteration: int) -> Draws:
        """As :meth:`StreamMemory.noise`."""
        return JoinedKey(tuple(m.noise(role, iteration) for m in self.members))

    def owned(self) -> list[int]:
        """Audio latents that the next chunk of each stream owns."""
        return [n for m in self.members for n in m.owned()]

    def pointer_words(self) -> Tensor:
        """(B,) pointers in words."""
        return torch.cat([m.pointer_words() for m in self.members])

    def conditions(self) -> tuple[Conditions, Tensor]:
        """As :meth:`StreamMemory.conditions`, of all streams."""
        parts, bases = zip(*(m.conditions() for m in self.members), strict=True)
        if len({c.video_latents for c in parts}) > 1:
            raise ValueError("a shorter first chunk cannot be generated together with whole ones: streams that are "
                             "joined need a clock without first_frames")
        return _stacked(parts), torch.cat(bases)

    def advance(self, latents: Latents, predicted: Tensor, rate: float) -> None:
        """As :meth:`StreamMemory.advance`, each stream with its own part."""
        for b, member in enumerate(self.members):
            part = Latents(latents.video[b:b + 1], latents.audio[b:b + 1])
            member.advance(part, predicted[b:b + 1], rate)


def _stacked(parts: Sequence[Conditions]) -> Conditions:
    """Conditions of single streams as one batch."""
    values: dict[str, Tensor | Text | int | None] = {}
    for field in fields(Conditions):
        column = [getattr(part, field.name) for part in parts]
        if field.name == "video_latents":
            values[field.name] = column[0]
        elif isinstance(column[0], Text):
            values[field.name] = Text(torch.cat([t.ids for t in column]), torch.cat([t.mask for t in column]))
        else:
            values[field.name] = torch.cat(column)
    return Conditions(**values)  # type: ignore[arg-type]
