"""Magnitude spectra to sound as they come: phases found by iteration over two blocks, then one block is made final.

Real-time iterative spectrogram inversion with look-ahead (Zhu, Beauregard & Wyse 2007) with the momentum of the fast
Griffin-Lim algorithm (Perraudin, Balazs & Sondergaard 2013). One step always handles one block of frames with the
block after it as look-ahead, so what comes out does not depend on how the stream was cut into pushes. A step is a
function of tensors of fixed shapes alone (:class:`PhaseStep`), so that a GPU can record it.

Legend: B streams side by side, P frames per block, J frames in work (2 P), K bins, W window, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass
class PhaseState:
    """What a stream's next step depends on.

    waiting: (B, P, K) spectra begun, not final. targets: (B, P, K) their magnitudes. tail: (B, 480) the final frames'
    part of the samples that follow; tail_norm: (480,) their sum of squared windows.
    """

    waiting: Tensor
    targets: Tensor
    tail: Tensor
    tail_norm: Tensor


class PhaseStep:
    """The arithmetic of a block, without state of its own.

    Args:
        block: P, frames per block.
        iterations: phase updates per block.
        device: where it works.
    """

    def __init__(self, block: int, iterations: int, device: torch.device | str = "cpu") -> None:
        self.block, self.iterations = block, iterations
        self.window = hann().to(device)
        self.squared = self.window * self.window

    def fresh(self, streams: int) -> PhaseState:
        """The state before the first block of B streams: nothing waits."""
        device = self.window.device
        return PhaseState(torch.zeros(streams, 0, BINS, dtype=torch.complex64, device=device),
                          torch.zeros(streams, 0, BINS, device=device), torch.zeros(streams, OVERLAP, device=device),
                          torch.zeros(OVERLAP, device=device))

    def advance(self, state: PhaseState, magnitudes: Tensor) -> tuple[Tensor, PhaseState]:
        """One more block (B, P, K): the block before it, (B, P*HOP) samples, becomes final; none at the first one."""
        known, targets = state.waiting, torch.cat([state.targets, magnitudes], 1)
        spectra = self._iterate(self._begin(magnitudes, state), targets, state)
        waiting, last = spectra[:, -self.block:], targets[:, -self.block:]
        if known.shape[1] == 0:
            return spectra.new_zeros(len(spectra), 0, dtype=torch.float32), PhaseState(
                waiting, last, state.tail, state.tail_norm)
        sound, tail, norm = self._settle(spectra[:, :self.block], state)
        return sound[:, :self.block * HOP], PhaseState(waiting, last, tail, norm)

    def rest(self, state: PhaseState) -> Tensor:
        """(B, P*HOP + 480) the samples of the block that waits, and what follows it."""
        return self._settle(self._iterate(state.waiting, state.targets, state), state)[0]

    def _settle(self, spectra: Tensor, state: PhaseState) -> tuple[Tensor, Tensor, Tensor]:
        """Make frames final: their samples, and the tail that they leave."""
        total, norm = self._overlap(spectra, state), self._norm(spectra.shape[1], state)
        return total / norm.clamp(min=THIN), total[:, -OVERLAP:], norm[-OVERLAP:]

    def _begin(self, magnitudes: Tensor, state: PhaseState) -> Tensor:
        """First guess: each new frame takes the phases of what the frames before it already say about its time."""
        total, norm, known = state.tail, state.tail_norm, state.waiting
        if known.shape[1]:
            total, norm = self._overlap(known, state)[:, -OVERLAP:], self._norm(known.shape[1], state)[-OVERLAP:]
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

    def _iterate(self, spectra: Tensor, magnitudes: Tensor, state: PhaseState) -> Tensor:
        weight = 1 / self._norm(spectra.shape[1], state).clamp(min=THIN)
        last = spectra
        for _ in range(self.iterations):
            sound = self._overlap(spectra, state) * weight
            now = torch.fft.rfft(sound.unfold(1, WINDOW, HOP) * self.window)  # (B, J, K)
            spectra = _with_magnitude(torch.lerp(last, now, 1 + MOMENTUM), magnitudes)
            last = now
        return spectra

    def _overlap(self, spectra: Tensor, state: PhaseState) -> Tensor:
        """(B, J, K) -> windowed frames added up with the tail, (B, J*HOP + 480)."""
        return _shifted_sum(torch.fft.irfft(spectra, n=WINDOW) * self.window, state.tail)

    def _norm(self, count: int, state: PhaseState) -> Tensor:
        """(J*HOP + 480,) sum of squared windows of ``count`` frames and the tail."""
        return _shifted_sum(self.squared.expand(1, count, -1), state.tail_norm[None])[0]


class PhaseStream:
    """B sound streams that run side by side.

    Args:
        block: P, frames per block.
        iterations: phase updates per block.
        streams: B.
        device: where they run.
    """

    def __init__(self, block: int, iterations: int, streams: int = 1, device: torch.device | str = "cpu") -> None:
        self.block, self.streams = block, streams
        self.step = PhaseStep(block, iterations, device)
        self._reset()

    def _reset(self) -> None:
        self.skip = EDGE  # samples before the sound's start that the first frame reaches into
        self.state = self.step.fresh(self.streams)

    @property
    def lookahead(self) -> int:
        """Samples by which the output lags behind the input."""
        return self.block * HOP + EDGE

    @property
    def running(self) -> bool:
        """Whether a block waits: all steps from here on have the same shapes."""
        return self.state.waiting.shape[1] > 0

    def push(self, magnitudes: Tensor) -> Tensor:
        """One more block (B, P, K) -> (B, S) the samples that became final: none for the first block."""
        return self.take(*self.step.advance(self.state, magnitudes))

    def take(self, sound: Tensor, state: PhaseState) -> Tensor:
        """What :meth:`PhaseStep.advance` made of this stream's state: keeps the state, returns the samples to hear."""
        self.state = state
        if not sound.shape[1]:
            return sound
        skip, self.skip = self.skip, 0
        return sound[:, skip:]

    def flush(self) -> Tensor:
        """End of the streams: (B, S) the samples still held back. They are then as new."""
        if not self.running:
            return torch.zeros(self.streams, 0, device=self.state.tail.device)
        sound = self.step.rest(self.state)[:, self.skip:self.lookahead]
        self._reset()
        return sound

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the rest of the stream depends on."""
        s = self.state
        return {"waiting": torch.view_as_real(s.waiting).clone(), "targets": s.targets.clone(),
                "tail": s.tail.clone(), "tail_norm": s.tail_norm.clone(), "skip": torch.tensor(self.skip)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue a saved stream bit-identically.

        Raises:
            InputError: if the state is of a vocoder with other blocks.
        """
        streams, block = state["targets"].shape[:2]
        if block not in (0, self.block) or streams != self.streams:
            raise InputError(f"the saved state is of {streams} streams with blocks of {block} frames, this vocoder has "
                             f"{self.streams} with {self.block}; use the codec that the stream was begun with")
        device = self.state.tail.device
        waiting, targets, tail, norm = (state[k].to(device).contiguous().clone()
                                        for k in ("waiting", "targets", "tail", "tail_norm"))
        self.state, self.skip = PhaseState(torch.view_as_complex(waiting), targets, tail, norm), int(state["skip"])


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
