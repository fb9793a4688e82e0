"""A video codec whose decoder runs from static buffers, laid out and held as the device's convolutions want it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from streamchar.codecs.protocol import VideoCodec

log = logging.getLogger(__name__)

TRIES = 2


class FastVideo(nn.Module):
    """``inner``, faster; decoded frames are valid until the next call. Serves one thread at a time.

    Args:
        inner: on its device.
        call: makes a static call of a function.
    """

    def __init__(self, inner: VideoCodec, call: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        super().__init__()
        self.inner = inner
        self.channels, self.spatial_stride, self.temporal_stride = (
            inner.channels, inner.spatial_stride, inner.temporal_stride)
        self._decode = call(inner.decode)

    @property
    def fingerprint(self) -> str:
        """As ``inner``."""
        return self.inner.fingerprint

    def encode(self, frames: Tensor) -> Tensor:
        """As ``inner``."""
        return self.inner.encode(frames)

    def decode(self, latents: Tensor) -> Tensor:
        """As ``inner``."""
        return self._decode(latents)


def prepare(codec: VideoCodec, latents: tuple[int, ...], half: bool, compiled: bool) -> None:
    """Make the networks that decode faster, in place, on CUDA: bf16, channels last, compiled where that is quick.

    latents: (1, C, T, h, w) of a chunk, to try layouts with. half: hold their weights in bf16.
    """
    parts: list[nn.Module] = list(getattr(codec, "decoding_parts", list)())
    if half:
        for part in parts:
            part.to(torch.bfloat16)
    layers = [m for part in parts for m in part.modules()]
    lay_out(layers, nn.Conv2d, torch.channels_last)
    if any(isinstance(m, nn.Conv3d) for m in layers):
        _lay_out_in_time(codec, layers, latents)
    elif compiled:  # not those with time: they keep a state in Python, frame by frame, and would compile for minutes
        for part in parts:
            part.compile(dynamic=False)


def _lay_out_in_time(codec: VideoCodec, layers: list[nn.Module], shape: tuple[int, ...]) -> None:
    """Which layout is faster depends on cuDNN's version and the sizes: both are tried, the faster one is kept."""
    x, seconds = torch.zeros(shape, device=next(layers[0].parameters()).device), {}
    formats = {"channels first": torch.contiguous_format, "channels last": torch.channels_last_3d}
    for name, layout in formats.items():
        lay_out(layers, nn.Conv3d, layout)
        seconds[name] = _seconds(lambda: codec.decode(x))
    best = min(seconds, key=seconds.__getitem__)
    lay_out(layers, nn.Conv3d, formats[best])
    log.info("video decoder's layout: %s (%s)", best, ", ".join(f"{n} {1e3 * s:.0f} ms" for n, s in seconds.items()))


def lay_out(layers: Iterable[nn.Module], kind: type[nn.Module], layout: torch.memory_format) -> None:
    """Keep the weights of all layers of ``kind`` in that order; cuDNN then computes in it."""
    for layer in layers:
        if isinstance(layer, kind):
            weight: Any = layer.weight
            weight.data = weight.data.contiguous(memory_format=layout)


@torch.no_grad()
def _seconds(act: Callable[[], Any]) -> float:
    act()  # kernels are chosen
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(TRIES):
        act()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / TRIES
