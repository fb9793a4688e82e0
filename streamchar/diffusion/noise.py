"""Counted noise: a function of (seed, iteration, role, global sample index, chunk, step), never of RNG state or rank.

Hence a resumed run needs no RNG dump, and one process, two processes and accumulated micro-batches draw the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from streamchar.types import Latents


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
        return cls(seed, tuple(int(i) for i in index), role, iteration)

    def at(self, **changes: object) -> NoiseKey:
        """The same key with some parts changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def _generators(self, name: str, device: torch.device) -> list[torch.Generator]:
        out = []
        for i in self.index:
            seed = _seed(self.seed, self.iteration, self.role, i, self.chunk, self.step, name)
            out.append(torch.Generator(device).manual_seed(seed))
        return out

    def normal(self, shape: Sequence[int], name: str = "", device: torch.device | str = "cpu") -> Tensor:
        """Standard normal (B, *shape) float32."""
        device = torch.device(device)
        out = torch.empty(len(self.index), *shape, device=device)
        for row, generator in zip(out, self._generators(name, device), strict=True):
            row.normal_(generator=generator)
        return out

    def uniform(self, shape: Sequence[int] = (), name: str = "", device: torch.device | str = "cpu") -> Tensor:
        """Uniform in [0, 1), (B, *shape) float32."""
        device = torch.device(device)
        out = torch.empty(len(self.index), *shape, device=device)
        for b, generator in enumerate(self._generators(name, device)):
            out[b] = torch.rand(tuple(shape), generator=generator, device=device)
        return out

    def like(self, latents: Latents, name: str = "") -> Latents:
        """Noise of the shapes of ``latents``, float32, one draw per modality."""
        device = latents.video.device
        return Latents(self.normal(latents.video.shape[1:], name + "video", device),
                       self.normal(latents.audio.shape[1:], name + "audio", device))
