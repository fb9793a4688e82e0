"""The embedded sound codec: log-mel frames stacked per latent, a PCA fitted in seconds, and an untrained vocoder.

Latent i covers samples [640 i, 640 (i + 1)) at the default stack of 4; its mel frames lie centred inside that span, so
a clip encoded whole equals the clip encoded from any latent on (away from the edges by one window).
Legend: B batch, S samples, T latents, C channels, D = stack x mels, M mels, K bins, P stack.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from streamchar.codecs.fingerprint import fingerprint
from streamchar.codecs.mel_spectrum import BINS, HOP, SAMPLE_RATE, hann, magnitudes, mel_filters
from streamchar.codecs.pca import LinearCode, Moments
from streamchar.codecs.vocoder import PhaseStep, PhaseStream
from streamchar.errors import InputError
from streamchar.nn.static_call import StaticCall


class MelCodec(nn.Module):
    """See :class:`streamchar.codecs.protocol.AudioCodec`.

    Args:
        channels: C of a latent.
        stack: 10 ms mel frames per latent.
        mels: bands.
        level_floor: added to mel magnitudes before the logarithm.
        sigma_floor, whiten: how channels are divided, see :meth:`streamchar.codecs.pca.Components.scale`.
        iterations: phase updates per latent of the vocoder.
    """

    kind = "mel"
    sample_rate = SAMPLE_RATE
    filters: Tensor
    window: Tensor
    to_bins: Tensor
    bins_mean: Tensor

    def __init__(self, channels: int = 96, stack: int = 4, mels: int = 80, level_floor: float = 1e-2,
                 sigma_floor: float = 0.02, whiten: float = 0.5, iterations: int = 8) -> None:
        super().__init__()
        self.channels, self.stack, self.mels = channels, stack, mels
        self.level_floor, self.iterations = level_floor, iterations
        self.sigma_floor, self.whiten = sigma_floor, whiten
        self.latent_rate = SAMPLE_RATE / (HOP * stack)
        self.register_buffer("window", hann(), persistent=False)
        self.register_buffer("filters", mel_filters(mels), persistent=False)
        self.code = LinearCode(stack * mels, channels)
        self.register_buffer("to_bins", torch.zeros(mels, BINS))
        self.register_buffer("bins_mean", torch.zeros(BINS))
        self._static: StaticCall | None = None

    def settings(self) -> dict[str, Any]:
        """What the constructor needs to rebuild this codec."""
        return {name: getattr(self, name)
                for name in ("channels", "stack", "mels", "level_floor", "sigma_floor", "whiten", "iterations")}

    @property
    def fingerprint(self) -> str:
        """sha256 over kind, settings and weights."""
        return fingerprint(self.kind, self.settings(), self.state_dict())

    @property
    def latent_samples(self) -> int:
        """Samples that one latent covers."""
        return HOP * self.stack

    @property
    def lookahead(self) -> int:
        """Samples by which a decoder's output lags behind the latents pushed."""
        return self.phases().lookahead

    @torch.no_grad()
    def fit(self, waves: Iterable[Tensor]) -> MelCodec:
        """Fit the PCA and the map from mel bands back to bins on sounds (S,) at 16 kHz.

        Raises:
            DataError: if there are none long enough, or values are not finite.
        """
        stacked, joint = Moments(self.stack * self.mels), Moments(self.mels + BINS)
        for wave in waves:
            if len(wave) < self.latent_samples:
                continue
            spectra = magnitudes(wave[None].to(self.window), self.window)
            mel_JM = self._log(spectra @ self.filters.T)[0]
            joint.add(torch.cat([mel_JM, self._log(spectra)[0]], 1))
            whole = len(mel_JM) // self.stack * self.stack
            stacked.add(mel_JM[:whole].reshape(-1, self.stack * self.mels))
        self.code.store(stacked.components(self.channels), self.sigma_floor, self.whiten)
        self._fit_bins(joint)
        return self

    def _fit_bins(self, joint: Moments) -> None:
        """Ridge regression from log-mel bands to log magnitudes of the bins."""
        mean, covariance = joint.centred()
        mm, mk = covariance[:self.mels, :self.mels], covariance[:self.mels, self.mels:]
        ridge = 1e-3 * mm.diagonal().mean() * torch.eye(self.mels, dtype=mm.dtype)
        weight = torch.linalg.solve(mm + ridge, mk)
        self.to_bins.copy_(weight)
        self.bins_mean.copy_(mean[self.mels:] - mean[:self.mels] @ weight)

    def _log(self, values: Tensor) -> Tensor:
        return torch.log(values + self.level_floor)

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        """(B, S) float in [-1, 1] -> (B, floor(S / (160 stack)), C).

        Raises:
            InputError: if ``wave`` is not (B, S).
        """
        if wave.ndim != 2:
            raise InputError(f"a sound must be (batch, samples), got {tuple(wave.shape)}; add the batch dimension")
        count = wave.shape[1] // self.latent_samples
        if count == 0:
            return wave.new_zeros(len(wave), 0, self.channels, dtype=self.window.dtype)
        mel = self._log(magnitudes(wave.to(self.window), self.window) @ self.filters.T)[:, :count * self.stack]
        return self.code(mel.reshape(len(wave), count, self.stack * self.mels))

    @torch.no_grad()
    def log_mel(self, latents: Tensor) -> Tensor:
        """(..., C) -> (..., stack, mels) log-mel frames."""
        return self.code.inverse(latents.to(self.window)).unflatten(-1, (self.stack, self.mels))

    @torch.no_grad()
    def spectra(self, latents: Tensor) -> Tensor:
        """(..., C) -> (..., stack, K) magnitudes of the bins."""
        log_bins = self.log_mel(latents) @ self.to_bins + self.bins_mean
        return (torch.exp(log_bins) - self.level_floor).clamp(min=0)

    def phases(self, streams: int = 1) -> PhaseStream:
        """Fresh vocoders where the codec is."""
        return PhaseStream(self.stack, self.iterations, streams, self.window.device)

    def make_static(self) -> None:
        """From now on a decoder's steps run from static buffers, on CUDA as one graph: a latent costs one launch in
        place of hundreds. All decoders share them: use one at a time."""
        step = PhaseStep(self.stack, self.iterations, self.window.device)
        self._static = StaticCall(lambda state, row: step.advance(state, self.spectra(row).float()), urgent=True)

    def step(self, phases: PhaseStream, row: Tensor) -> Tensor:
        """(B, C) the next latent of every stream -> (B, S) the samples that are now final."""
        if self._static is not None and phases.running:
            return phases.take(*self._static(phases.state, row))
        return phases.push(self.spectra(row).float())

    def decoder(self) -> MelDecoder:
        """A fresh streaming decoder."""
        return MelDecoder(self)

    def decode(self, latents: Tensor) -> Tensor:
        """(T, C) -> (640 T,): one push and one flush of a fresh decoder. Also (B, T, C) -> (B, 640 T), side by side."""
        if latents.ndim == 2:
            return self.decode(latents[None])[0]
        phases = self.phases(len(latents))
        return torch.cat([_advance(self, phases, latents), phases.flush()], 1)


class MelDecoder:
    """See :class:`streamchar.codecs.protocol.AudioDecoder`; works where the codec is, one latent at a time."""

    def __init__(self, codec: MelCodec) -> None:
        self.codec = codec
        self.phases = codec.phases()

    def push(self, latents: Tensor) -> Tensor:
        """(T, C) -> the samples that are now final.

        Raises:
            InputError: if the latents have another number of channels or are not finite.
        """
        return _advance(self.codec, self.phases, latents[None])[0]

    def flush(self) -> Tensor:
        """The samples still held back."""
        return self.phases.flush()[0]

    def state_dict(self) -> dict[str, Tensor]:
        """The stream's state."""
        return self.phases.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue a saved stream bit-identically."""
        self.phases.load_state_dict(state)


def _advance(codec: MelCodec, phases: PhaseStream, latents: Tensor) -> Tensor:
    """(B, T, C) -> (B, S) the samples that are final after these latents."""
    if latents.ndim != 3 or latents.shape[2] != codec.channels:
        raise InputError(f"the sound decoder takes (T, {codec.channels}), got {tuple(latents.shape[1:])}")
    if not torch.isfinite(latents).all():
        raise InputError("latents hold NaN or infinite values; the model that made them has diverged")
    sound = [torch.zeros(len(latents), 0, device=codec.window.device)]
    for row in latents.to(codec.window).unbind(1):
        # One latent per step, copied: the same arithmetic whatever the cut of the stream.
        sound.append(codec.step(phases, row.clone()))
    return torch.cat(sound, 1)
