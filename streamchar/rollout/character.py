"""A character: the models and codecs that together turn text, a voice and a picture into chunks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from streamchar.clock import ChunkClock
from streamchar.codecs.protocol import AudioCodec, VideoCodec
from streamchar.denoiser.model import Denoiser
from streamchar.diffusion.config import DiffusionConfig
from streamchar.errors import InputError
from streamchar.orchestrator.model import Orchestrator
from streamchar.rollout.memory import StreamMemory
from streamchar.transcript import TextUnits
from streamchar.types import RolloutBatch
from streamchar.window import WindowConfig


@dataclass
class Character:
    """Everything that the chunk loop needs.

    size: side of its square pictures in pixels. few_step: whether the denoiser is a distilled student.
    """

    denoiser: Denoiser
    orchestrator: Orchestrator
    clock: ChunkClock
    window: WindowConfig
    units: TextUnits
    diffusion: DiffusionConfig
    size: int
    video_codec: VideoCodec | None = None
    audio_codec: AudioCodec | None = None
    few_step: bool = False

    def codecs(self) -> tuple[VideoCodec, AudioCodec]:
        """Both codecs.

        Raises:
            InputError: for a character that was built without them and can make latents only.
        """
        if self.video_codec is None or self.audio_codec is None:
            raise InputError("this character has no codecs: load it from an export or a run, which carry them")
        return self.video_codec, self.audio_codec

    def to(self, device: torch.device | str) -> Character:
        """The same with both models on ``device``; codecs stay where they are, see :meth:`with_codecs_on`."""
        return replace(self, denoiser=self.denoiser.to(device), orchestrator=self.orchestrator.to(device))

    def with_codecs_on(self, device: torch.device | str) -> Character:
        """This one, with those of its codecs that are networks on ``device``, where a stream wants them."""
        for codec in (self.video_codec, self.audio_codec):
            if isinstance(codec, nn.Module):
                codec.to(device)
        return self

    def start(self, batch: RolloutBatch, seed: int = 0, use_sink: bool = True) -> StreamMemory:
        """Fresh memory for the streams of ``batch``."""
        return StreamMemory(batch, self.clock, self.window, self.units, seed, use_sink)
