"""A streaming session: chunks of latents in, frames and samples out to sinks, with a record of the time it took.

The chunk loop itself is ``streamchar.rollout.stream.stream_chunks``; this file only decodes what it yields: every
video chunk on its own (independent groups), the *owned* audio latents through one streaming decoder per stream.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from streamchar.clock import ChunkClock
from streamchar.codecs.protocol import AudioCodec, VideoCodec
from streamchar.streaming.timing import ChunkTiming, TimingRecord
from streamchar.types import Latents


class Chunk(Protocol):
    """What the session needs of a ``ChunkResult``: latents, how many audio latents it owns, pointers in words (B,)."""

    latents: Latents
    audio_owned: int
    chunk: int
    pointer_before: Any
    pointer_after: Any


class Sink(Protocol):
    """Takes a stream's frames (F, H, W, 3) uint8 and samples (S,), each continuing where the last call ended."""

    def write(self, frames: NDArray[np.uint8], samples: NDArray[np.floating]) -> None: ...

    def close(self) -> None: ...


class MemorySink:
    """Keeps everything: ``frames`` (F, H, W, 3) uint8, ``sound`` (S,) float32 exactly as long as the frames."""

    def __init__(self, fps: float, sample_rate: int) -> None:
        self.fps, self.sample_rate = fps, sample_rate
        self._frames: list[NDArray[np.uint8]] = []
        self._sound: list[NDArray[np.floating]] = []

    def write(self, frames: NDArray[np.uint8], samples: NDArray[np.floating]) -> None:
        if len(frames):
            self._frames.append(frames)
        self._sound.append(samples)

    def close(self) -> None:
        """Nothing to finish."""

    @property
    def frames(self) -> NDArray[np.uint8]:
        return np.concatenate(self._frames) if self._frames else np.zeros((0, 2, 2, 3), np.uint8)

    @property
    def sound(self) -> NDArray[np.float32]:
        whole = np.concatenate(self._sound) if self._sound else np.zeros(0)
        size = int(len(self.frames) * self.sample_rate / self.fps)
        return np.pad(whole[:size], (0, max(size - len(whole), 0))).astype(np.float32)


class StreamSession:
    """Decodes chunks for B streams and hands them to B sinks.

    Args:
        clock, video_codec, audio_codec: of the character.
        sinks: one per stream; ``run`` closes them, whatever happens.
        record: receives each chunk's times.
        transcript_words: words per stream; a stream's sink takes nothing more after its one quiet chunk past the end.
    """

    def __init__(self, clock: ChunkClock, video_codec: VideoCodec, audio_codec: AudioCodec, sinks: Sequence[Sink],
                 transcript_words: Sequence[int] | None = None) -> None:
        self.clock, self.video_codec, self.sinks = clock, video_codec, list(sinks)
        self.sound_device = device_of(audio_codec)
        self.decoders = [audio_codec.decoder() for _ in sinks]
        self.words = list(transcript_words) if transcript_words is not None else None
        self.done = [False] * len(self.sinks)
        self.record = TimingRecord(float(clock.chunk_seconds), streams=len(self.sinks))
        self.pointers: list[list[float]] = [[] for _ in sinks]
        self.audio_latents: list[list[torch.Tensor]] = [[] for _ in sinks]
        self.video_latents: list[list[torch.Tensor]] = [[] for _ in sinks]

    def run(self, chunks: Iterable[Chunk]) -> TimingRecord:
        """Consume the stream to its end. Sinks are finished also when this is interrupted (Ctrl-C) or fails."""
        try:
            for _ in self.iterate(chunks):
                pass
        finally:
            self.finish()
        return self.record

    def iterate(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """Decode and write each chunk, then yield it (for progress bars and servers)."""
        began = time.perf_counter()
        source = iter(chunks)
        while True:
            start = time.perf_counter()
            with torch.inference_mode():
                chunk = next(source, None)
            if chunk is None:
                return
            _synchronise(chunk.latents.video)
            generated = time.perf_counter()
            timing = self._deliver(chunk, generated - start)
            timing.ready = time.perf_counter() - began
            self.record.add(timing)
            yield chunk

    @torch.inference_mode()
    def _deliver(self, chunk: Chunk, generate_s: float) -> ChunkTiming:
        t0 = time.perf_counter()
        latents = chunk.latents.video.float().to(device_of(self.video_codec))
        frames = self.video_codec.decode(latents)  # (B, F, 3, H, W) in [0, 1]
        pictures = (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()
        t1 = time.perf_counter()
        owned = chunk.latents.audio[:, :chunk.audio_owned].float().to(self.sound_device)
        sounds = [d.push(owned[b]).float().cpu().numpy() if not self.done[b] else np.zeros(0, np.float32)
                  for b, d in enumerate(self.decoders)]
        t2 = time.perf_counter()
        for b, sink in enumerate(self.sinks):
            if self.done[b]:
                continue
            self.pointers[b].append(float(chunk.pointer_after[b]))
            self.audio_latents[b].append(owned[b].cpu())
            self.video_latents[b].append(chunk.latents.video[b].float().cpu())
            sink.write(pictures[b], sounds[b])
            if self.words is not None and float(chunk.pointer_before[b]) >= self.words[b]:
                self._end(b)
        return ChunkTiming(generate_s, t1 - t0, t2 - t1, time.perf_counter() - t2, 0.0)

    def _end(self, b: int) -> None:
        """Write what the decoder still holds back and close the stream's sink."""
        self.done[b] = True
        try:
            tail = self.decoders[b].flush().float().cpu().numpy()
            frames = np.zeros((0, 2, 2, 3), np.uint8)
            self.sinks[b].write(frames, tail)
        finally:
            self.sinks[b].close()

    def finish(self) -> None:
        """End every stream that is still open."""
        for b, done in enumerate(self.done):
            if not done:
                self._end(b)


def device_of(model: object) -> torch.device:
    """Where a module's weights are; the CPU for codecs that are no modules."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, torch.nn.Module) else []
    return tensors[0].device if tensors else torch.device("cpu")


def _synchronise(tensor: torch.Tensor) -> None:
    """Wait for the device, so that the times are those of the work and not of its launch."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
