"""Magnitude spectra to sound as they come: phases found by iteration over two blocks, then one block is made final.

Real-time iterative spectrogram inversion with look-ahead (Zhu, Beauregard & Wyse 2007) with the momentum of the fast
Griffin-Lim algorithm (Perraudin, Balazs & Sondergaard 2013). One step always handles one block of frames with the
block after it as look-ahead, so what comes out does not depend on how the stream was cut into pushes.

Legend: B streams side by side, P frames per block, J frames in work (2 P), K bins, W window, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from streamchar.codecs.mel_spectrum import BINS, EDGE, HOP, WINDOW, hann
from streamchar.errors import InputError

MOMENTUM = 0.9
OVERLAP = WINDOW - HOP
FLOOR = 1e-16
QUIET = 1e-6
THIN = 1e-2
"""Smallest sum of squared windows that is divided by, at the edges where few frames overlap."""


class PhaseStream:
    """State of B sound streams that run side by side.

    Args:
        block: P, frames per block.
        iterations: phase updates per block.
        streams: B.
    """

    def __init__(self, block: int, iterations: int, streams: int = 1) -> None:
        self.block, self.iterations, self.streams = block, iterations, streams
        self.window = hann()
        self.squared = self.window * self.window
        self._reset()

    def _reset(self) -> None:
        self.skip = EDGE  # samples before the sound's start that the first frame reaches into
        self.waiting = torch.zeros(self.streams, 0, BINS, dtype=torch.complex64)  # (B, P, K) begun, not final
        self.targets = torch.zeros(self.streams, 0, BINS)  # (B, P, K) their magnitudes
        self.tail = torch.zeros(self.streams, OVERLAP)  # the final frames' part of the samples that follow, and
        self.tail_norm = torch.zeros(OVERLAP)  # their sum of squared windows

    @property
    def lookahead(self) -> int:
        """Samples by which the output lags behind the input."""
        return self.block * HOP + EDGE

    def push(self, magnitudes: Tensor) -> Tensor:
        """One more block (B, P, K) -> (B, S) the samples that became final: none for the first block."""
        known, targets = self.waiting, torch.cat([self.targets, magnitudes], 1)
        spectra = self._iterate(self._begin(magnitudes, known), targets)
        self.waiting, self.targets = spectra[:, -self.block:], targets[:, -self.block:]
        if known.shape[1] == 0:
            return torch.zeros(self.streams, 0)
        return self._settle(spectra[:, :self.block], self.block * HOP)

    def flush(self) -> Tensor:
        """End of the streams: (B, S) the samples still held back. They are then as new."""
        if self.waiting.shape[1] == 0:
            return torch.zeros(self.streams, 0)
        sound = self._settle(self._iterate(self.waiting, self.targets), self.lookahead)
        self._reset()
        return sound

    def _settle(self, spectra: Tensor, samples: int) -> Tensor:
        """Make frames final: their first ``samples`` samples, less what lies before the sound's start."""
        total, norm = self._overlap(spectra), self._norm(spectra.shape[1])
        sound = (total / norm.clamp(min=THIN))[:, self.skip:samples]
        self.skip, self.tail, self.tail_norm = 0, total[:, -OVERLAP:], norm[-OVERLAP:]
        return sound

    def _begin(self, magnitudes: Tensor, known: Tensor) -> Tensor:
        """First guess: each new frame takes the phases of what the frames before it already say about its time."""
        total, norm = self.tail, self.tail_norm
        if known.shape[1]:
            total, norm = self._overlap(known)[:, -OVERLAP:], self._norm(known.shape[1])[-OVERLAP:]
        spectra = list(known.unbind(1))
        for magnitude in magnitudes.unbind(1):
            part = F.pad(total / norm.clamp(min=0.05), (0, HOP))
            guess = torch.fft.rfft(part * self.window)
            silent = guess.abs() < QUIET  # no past to take a phase from: phase 0
            spectra.append(_with_magnitude(guess + silent, magnitude))
            frame = torch.fft.irfft(spectra[-1], n=WINDOW) * self.window
            total, norm = (F.pad(t, (0, HOP)) + f for t, f in ((total, frame), (norm, self.squared)))
            total, norm = total[:, HOP:], norm[HOP:]
        return torch.stack(spectra, 1)

    def _iterate(self, spectra: Tensor, magnitudes: Tensor) -> Tensor:
        weight = 1 / self._norm(spectra.shape[1]).clamp(min=THIN)
        last = spectra
        for _ in range(self.iterations):
            sound = self._overlap(spectra) * weight
            now = torch.fft.rfft(sound.unfold(1, WINDOW, HOP) * self.window)  # (B, J, K)
            spectra = _with_magnitude(torch.lerp(last, now, 1 + MOMENTUM), magnitudes)
            last = now
        return spectra

    def _overlap(self, spectra: Tensor) -> Tensor:
        """(B, J, K) -> windowed frames added up with the tail, (B, J*HOP + 480)."""
        return _shifted_sum(torch.fft.irfft(spectra, n=WINDOW) * self.window, self.tail)

    def _norm(self, count: int) -> Tensor:
        """(J*HOP + 480,) sum of squared windows of ``count`` frames and the tail."""
        return _shifted_sum(self.squared.expand(1, count, -1), self.tail_norm[None])[0]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the rest of the stream depends on."""
        return {"waiting": torch.view_as_real(self.waiting).clone(), "targets": self.targets.clone(),
                "tail": self.tail.clone(), "tail_norm": self.tail_norm.clone(), "skip": torch.tensor(self.skip)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue a saved stream bit-identically.

        Raises:
            InputError: if the state is of a vocoder with other blocks.
        """
        streams, block = state["targets"].shape[:2]
        if block not in (0, self.block) or streams != self.streams:
            raise InputError(f"the saved state is of {streams} streams with blocks of {block} frames, this vocoder has "
                             f"{self.streams} with {self.block}; use the codec that the stream was begun with")
        self.waiting = torch.view_as_complex(state["waiting"].contiguous().clone())
        self.targets, self.skip = state["targets"].clone(), int(state["skip"])
        self.tail, self.tail_norm = state["tail"].clone(), state["tail_norm"].clone()


def _shifted_sum(frames: Tensor, tail: Tensor) -> Tensor:
    """Frames (B, J, W), each a hop later than the one before, added to ``tail`` (B, 480) -> (B, J*HOP + 480)."""
    size = frames.shape[1] * HOP + OVERLAP
    total = F.fold(frames.transpose(1, 2), (1, size), (1, WINDOW), stride=(1, HOP))[:, 0, 0]
    total[:, :OVERLAP] += tail
    return total


def _with_magnitude(spectra: Tensor, magnitudes: Tensor) -> Tensor:
    """The phases of ``spectra`` (where there are any) with other magnitudes."""
    power = torch.view_as_real(spectra).square().sum(-1)
    return spectra * (power.clamp_(min=FLOOR).rsqrt_() * magnitudes)
