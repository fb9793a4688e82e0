"""Streaming decoder of LTX-2's sound latents: windows that overlap by all that the networks see, so without a seam.

The autoencoder's decoder is causal and sees a bounded past; the vocoder sees equally far both ways. A push decodes the
new latents together with that past, and gives out the samples whose surroundings are there: the look-ahead.
Legend: T latents, C channels; frames are mel frames, counted from the stream's start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from streamchar.codecs.ltx2_reach import FRAMES
from streamchar.errors import InputError


class Ltx2Decoder:
    """See :class:`streamchar.codecs.protocol.AudioDecoder`; works where the codec is."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self._latents: Tensor = codec.silence.to(codec.window)
        self._first, self._done = 0, 0  # number of the first latent kept, frames given out

    def push(self, latents: Tensor) -> Tensor:
        """(T, C) -> the samples that are now final.

        Raises:
            InputError: if the latents have another number of channels or are not finite.
        """
        if latents.ndim != 2 or latents.shape[1] != self.codec.channels:
            raise InputError(f"the sound decoder takes (T, {self.codec.channels}), got {tuple(latents.shape)}")
        if not torch.isfinite(latents).all():
            raise InputError("latents hold NaN or infinite values; the model that made them has diverged")
        self._latents = torch.cat([self._latents, latents.detach().to(self._latents)])
        return self._advance(self._frames() - self.codec.margin)

    def flush(self) -> Tensor:
        """The samples still held back."""
        return self._advance(self._frames() - 1)

    def _frames(self) -> int:
        """Mel frames that the latents so far hold: one, and four for each after the stream's silent beginning."""
        return 1 + FRAMES * (self._first + len(self._latents) - 1)

    def _advance(self, until: int) -> Tensor:
        """Samples of the frames from those given out up to ``until``."""
        if until <= self._done:
            return self._latents.new_zeros(0)
        begin = max(self._done - self.codec.margin, 0)  # frames that the vocoder needs
        self._forget(begin)
        offset = FRAMES * self._first  # frame of the first latent's last (or only) one
        mel = self.codec.decode_mel(self._latents[None])[:, :, begin - offset:]
        samples, left = self.codec.sound(mel)[0], self._done - begin
        sound = samples[left * self.codec.frame_samples:(until - begin) * self.codec.frame_samples]
        self._done = until
        return sound

    def _forget(self, begin: int) -> None:
        """Drop the latents that have no part in frame ``begin`` and later ones."""
        keep = max((begin - 1) // FRAMES - self.codec.past, 0)
        if keep > self._first:
            self._latents = self._latents[keep - self._first:]
            self._first = keep

    def state_dict(self) -> dict[str, Tensor]:
        """The stream's state."""
        return {"latents": self._latents.clone(), "place": torch.tensor([self._first, self._done])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue a saved stream bit-identically."""
        self._latents = state["latents"].to(self._latents).clone()
        self._first, self._done = (int(n) for n in state["place"])
