"""The two small protocols that every codec implements (design, section 3: independent video chunks, one clock)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class VideoCodec(Protocol):
    """Frames to latents, one independent ``1 + 4 n`` group at a time; no state survives a chunk border.

    Attributes: ``channels`` C; ``spatial_stride`` s (8: a 96x96 frame gives a 12x12 grid); ``temporal_stride`` (4);
    ``fingerprint``: sha256 over kind, settings and weights, stored with latents and checked before training.
    One with networks may have ``decoding_parts()``: a list of the modules that only decode; they take their inputs in
    the type of their weights, so that the streaming engine can hold them in bf16.
    """

    channels: int
    spatial_stride: int
    temporal_stride: int

    @property
    def fingerprint(self) -> str: ...

    def encode(self, frames: Tensor) -> Tensor:
        """(B, F, 3, H, W) float in [0, 1], F = 1 + 4 n (1 for a picture) -> (B, C, 1 + n, H/s, W/s), unit variance."""

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, 1 + n, h, w) -> (B, 1 + 4 n, 3, H, W) float in [0, 1]."""


@runtime_checkable
class AudioDecoder(Protocol):
    """A streaming decoder of one sound stream: state carried from push to push, no seam, fixed look-ahead."""

    def push(self, latents: Tensor) -> Tensor:
        """(T, C) -> (S,) the samples that are now final (S may lag by the look-ahead)."""

    def flush(self) -> Tensor:
        """The samples still held back; after it exactly ``floor(latents * sample_rate / latent_rate)`` came out."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


@runtime_checkable
class AudioCodec(Protocol):
    """Sound to latents and back. Latent i covers samples [i, i+1) * sample_rate / latent_rate.

    Attributes: ``channels`` C, ``latent_rate`` (Hz), ``sample_rate`` (Hz), ``lookahead`` (samples), ``fingerprint``.
    One may have ``make_static()``: its decoders run from static buffers from then on, on CUDA as a graph.
    """

    channels: int
    latent_rate: float
    sample_rate: int
    lookahead: int

    @property
    def fingerprint(self) -> str: ...

    def encode(self, wave: Tensor) -> Tensor:
        """(B, S) float in [-1, 1] -> (B, floor(S * latent_rate / sample_rate), C), unit variance."""

    def decoder(self) -> AudioDecoder:
        """A fresh streaming decoder."""

    def decode(self, latents: Tensor) -> Tensor:
        """(T, C) -> (S,): one push and one flush of a fresh decoder."""
