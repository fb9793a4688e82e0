"""The orchestrator alone: its own head in the place of the denoiser, heard before a teacher exists.

The chunk loop, the pointer and the memory are those of a whole character. Pictures stay the noise they begin as.
"""

from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from streamchar.denoiser.config import DenoiserConfig
from streamchar.denoiser.model import Context, Denoiser
from streamchar.orchestrator.model import Orchestrator
from streamchar.types import Conditions, Latents


class SpeechOnlyDenoiser(Denoiser):
    """Velocities of sound by the orchestrator's light head on c_a, none of pictures.

    Args:
        orchestrator: trained, shared and unchanged.
        config: of the denoiser that is not there, for the latents' channels.
    """

    def __init__(self, orchestrator: Orchestrator, config: DenoiserConfig) -> None:
        nn.Module.__init__(self)
        self.orchestrator, self.config, self.clock = orchestrator, config, orchestrator.clock

    def encode_context(self, c: Conditions, caption: Tensor | None = None) -> Context:
        """Nothing is looked at."""
        return Context([])

    def forward(self, noisy: Latents, sigma: Tensor, c_a: Tensor, context: Context, audio_time: Tensor) -> Latents:
        """As :meth:`Denoiser.forward`; guidance knows no null vector here, only a c_a without text."""
        return Latents(torch.zeros_like(noisy.video), self.orchestrator.velocity(c_a, noisy.audio))
