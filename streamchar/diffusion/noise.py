"""Counted noise: a function of (seed, iteration, role, global sample index, chunk, step), never of RNG state or rank.

Hence a resumed run needs no RNG dump, and one process, two processes and accumulated micro-batches draw the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from streamchar.transfer import sent
from streamchar.types import Latents

HOST_NUMBERS = 64
"""Up to so many numbers a sample are drawn by the host for every device, and sent in one piece: a drop or a noise level
costs a device a kernel per sample, as whole latents do."""


def _seed(*parts: object) -> int:
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & 0x7FFF_FFFF_FFFF_FFFF


def scalar(seed: int, iteration: int, role: str) -> float:
    """One uniform number in [0, 1) that is the same on all ranks: exit steps, rollout lengths."""
    return _seed("scalar", seed, iteration, role) / 2**63


class Draws(Protocol):
    """What identifies the draws of a batch: :class:`NoiseKey`, or several of them for streams that are joined."""

    def at(self, **changes: object) -> Draws: ...

    def normal(self, shape: Sequence[int], name: str = "", device: torch.device | str = "cpu") -> Tensor: ...

    def like(self, latents: Latents, name: str = "") -> Latents: ...


@dataclass(frozen=True)
class NoiseKey:
    """What identifies a draw. ``index`` holds each sample's global index (length B)."""

    seed: int
    index: tuple[int, ...]
    role: str = ""
    iteration: int = 0
    chunk: int = 0
    step: int = 0

    @classmethod
    def of(cls, seed: int, index: Tensor | Sequence[int], role: str = "", iteration: int = 0) -> NoiseKey:
        """A key for a batch whose global sample indices are ``index``."""
        numbers = index.tolist() if isinstance(index, Tensor) else index  # in one piece, should it lie on a device
        return cls(seed, tuple(map(int, numbers)), role, iteration)

    def at(self, **changes: object) -> NoiseKey:
        """The same key with some parts changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def _drawn(self, shape: Sequence[int], name: str, device: torch.device | str,
               draw: Callable[..., object]) -> Tensor:
        """(B, *shape) float32, each sample's row filled by ``draw`` with a seed of its own."""
        place = torch.device("cpu" if prod(shape) <= HOST_NUMBERS else device)
        out, generator = torch.empty(len(self.index), *shape, device=place), torch.Generator(place)
        for row, i in zip(out, self.index, strict=True):
            seed = _seed(self.seed, self.iteration, self.role, i, self.chunk, self.step, name)
            draw(row, generator=generator.manual_seed(seed))
        return sent(out, device)

    def normal(self, shape: Sequence[int], name: str = "", device: torch.device | str = "cpu") -> Tensor:
        """Standard normal (B, *shape) float32."""
        return self._drawn(shape, name, device, Tensor.normal_)

    def uniform(self, shape: Sequence[int] = (), name: str = "", device: torch.device | str = "cpu") -> Tensor:
        """Uniform in [0, 1), (B, *shape) float32."""
        return self._drawn(shape, name, device, Tensor.uniform_)

    def like(self, latents: Latents, name: str = "") -> Latents:
        """Noise of the shapes of ``latents``, float32, one draw per modality."""
        device = latents.video.device
        return Latents(self.normal(latents.video.shape[1:], name + "video", device),
                       self.normal(latents.audio.shape[1:], name + "audio", device))
