"""Latents of a chunk to pictures and samples, stream by stream, in the order of the chunks.

Every video chunk is decoded on its own (independent groups), the *owned* audio latents through one streaming decoder
per stream.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamchar.codecs.protocol import AudioCodec, VideoCodec
from streamchar.errors import CheckpointError
from streamchar.types import Latents


@dataclass
class ChunkJob:
    """A generated chunk on its way to the sinks.

    latents: of B streams. audio_owned: per stream. open: streams that still take something; ends: those that take their
    last chunk now. generate_s: seconds that it took to generate.
    """

    chunk: int
    latents: Latents
    audio_owned: Sequence[int]
    open: list[bool]
    ends: list[bool]
    generate_s: float


@dataclass
class DecodedChunk:
    """``pictures`` (B, F, H, W, 3) uint8; per stream ``sounds`` (S,), and ``tails`` (S,), what its decoder held back at
    its end (None where it goes on)."""

    job: ChunkJob
    pictures: NDArray[np.uint8]
    sounds: list[NDArray[np.float32]]
    tails: list[NDArray[np.float32] | None]
    video_s: float
    audio_s: float


class ChunkDecoder:
    """Decodes the chunks of B streams.

    Args:
        video_codec, audio_codec: of the character.
        streams: B.
        beside: decode on a CUDA stream of its own, so that the next chunk is generated meanwhile.
    """

    def __init__(self, video_codec: VideoCodec, audio_codec: AudioCodec, streams: int, beside: bool = False) -> None:
        self.video_codec = video_codec
        self.picture_device, self.sound_device = device_of(video_codec), device_of(audio_codec)
        self.sound = [audio_codec.decoder() for _ in range(streams)]
        cuda = beside and self.picture_device.type == "cuda"
        # first in line: a listener waits for this chunk, nobody yet for the one that is generated beside it
        self._stream = torch.cuda.Stream(self.picture_device, priority=-1) if cuda else None

    @torch.inference_mode()
    def decode(self, job: ChunkJob) -> DecodedChunk:
        """All of a chunk; its latents must be finished on their device."""
        with self._scope():
            t0 = time.perf_counter()
            pictures = self._pictures(job.latents.video)
            t1 = time.perf_counter()
            sounds, tails = self._sounds(job)
        return DecodedChunk(job, pictures, sounds, tails, t1 - t0, time.perf_counter() - t1)

    def flush(self, b: int) -> NDArray[np.float32]:
        """The samples that stream ``b``'s decoder still holds back."""
        return self.sound[b].flush().float().cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """What the sound decoders carry from chunk to chunk; pictures carry nothing."""
        return {"sound": [dict(decoder.state_dict()) for decoder in self.sound]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`; raises CheckpointError where it holds another number of streams."""
        if len(state["sound"]) != len(self.sound):
            raise CheckpointError(f"the saved sound is of {len(state['sound'])} streams, here are {len(self.sound)}; "
                                  "give as many sinks as were saved")
        for decoder, saved in zip(self.sound, state["sound"], strict=True):
            decoder.load_state_dict(saved)

    def _scope(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _pictures(self, latents: Tensor) -> NDArray[np.uint8]:
        frames = self.video_codec.decode(latents.float().to(self.picture_device))  # (B, F, 3, H, W) in [0, 1]
        # rows of pixels are made on the device: on the host they would take longer than writing them
        pictures = (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).contiguous()
        if not pictures.is_cuda:
            return pictures.numpy()
        pinned = torch.empty(pictures.shape, dtype=torch.uint8, pin_memory=True)
        pinned.copy_(pictures, non_blocking=True)
        torch.cuda.current_stream(pictures.device).synchronize()
        return pinned.numpy()

    def _sounds(self, job: ChunkJob) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32] | None]]:
        audio = job.latents.audio.float().to(self.sound_device)
        sounds, tails = [], []
        for b, decoder in enumerate(self.sound):
            owned = audio[b, :job.audio_owned[b]]
            sounds.append(decoder.push(owned).float().cpu().numpy() if job.open[b] else np.zeros(0, np.float32))
            tails.append(self.flush(b) if job.ends[b] else None)
        return sounds, tails


def device_of(model: object) -> torch.device:
    """Where a module's weights are; the CPU for codecs that are no modules."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, torch.nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")


def finish(tensor: Tensor) -> None:
    """Wait until it is computed, so that another thread may use it, but not for what is decoded beside it."""
    if tensor.is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()
