"""Where a stream goes: an mp4 (``muxer.ClipWriter``), memory, or nowhere."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


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
        size = int(sum(map(len, self._frames)) * self.sample_rate / self.fps)
        return np.pad(whole[:size], (0, max(size - len(whole), 0))).astype(np.float32)


class CountingSink:
    """Keeps nothing, counts ``frames`` and ``samples``: for streams of hours and for benchmarks."""

    def __init__(self) -> None:
        self.frames, self.samples, self.closed = 0, 0, False

    def write(self, frames: NDArray[np.uint8], samples: NDArray[np.floating]) -> None:
        self.frames += len(frames)
        self.samples += len(samples)

    def close(self) -> None:
        self.closed = True
