"""The ablation without c_a: an orchestrator that hands the denoiser one fixed vector in place of its own."""

from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from streamchar.orchestrator.model import Orchestrator, Prefix
from streamchar.types import Conditions


class MutedOrchestrator(Orchestrator):
    """Reads the text and moves the pointer as ``inner`` does, but says nothing to the denoiser.

    Args:
        inner: the trained orchestrator, shared and unchanged.
        vector: (condition_width,) given as c_a at every audio latent and step: zeros, or the learned null vector.
    """

    def __init__(self, inner: Orchestrator, vector: Tensor) -> None:
        nn.Module.__init__(self)
        self.inner, self.config, self.clock = inner, inner.config, inner.clock
        self.register_buffer("vector", vector.detach().clone())

    def prefix(self, c: Conditions) -> Prefix:
        """As ``inner``."""
        return self.inner.prefix(c)

    def untold_prefix(self, c: Conditions) -> Prefix:
        """As ``inner``."""
        return self.inner.untold_prefix(c)

    def block(self, prefix: Prefix, audio: Tensor, sigma: Tensor) -> Tensor:
        """(B, T, condition_width): the fixed vector everywhere."""
        return self.get_buffer("vector").expand(*audio.shape[:2], -1)

    def point(self, prefix: Prefix, audio: Tensor) -> Tensor:
        """As ``inner``: the pointer listens to the finished sound, not to what the denoiser was told."""
        return self.inner.point(prefix, audio)
