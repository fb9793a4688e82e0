"""LTX-2's sound autoencoder and vocoder from a local folder in diffusers' layout, as a codec.

``AutoencoderKLLTX2Audio`` codes a log-mel spectrum of 16 kHz sound in 25 latents a second; ``LTX2Vocoder`` makes 24 kHz
sound of the spectrum. Both are stereo: our one channel goes in twice, and the mean comes out. The mel front end is the
one that diffusers gives this autoencoder (slaney bands of 1024-sample windows, magnitudes, log of at least 1e-5).

The autoencoder's first latent holds one mel frame, each further one four. That first one belongs to the moment before
a clip; it is left out, so that our latent i holds the four frames centred 10 to 40 ms after i / 25 s, and in decoding
it is that of silence. Legend: B batch, S samples, T latents, C channels = z x M / 4, F mel frames, M bands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from streamchar.codecs.diffusers_part import build_part, load_part
from streamchar.codecs.fingerprint import fingerprint
from streamchar.codecs.ltx2_reach import FRAMES, margin_frames, past_latents
from streamchar.codecs.ltx2_stream import Ltx2Decoder
from streamchar.diffusers_folder import ltx2_layout
from streamchar.errors import InputError

VAE, VOCODER = "AutoencoderKLLTX2Audio", "LTX2Vocoder"
WINDOW = 1024
FLOOR = 1e-5


class Ltx2AudioCodec(nn.Module):
    """See :class:`streamchar.codecs.protocol.AudioCodec`.

    Args:
        vae, vocoder: settings of the two models, as their ``config.json`` hold them; weights come from
            :meth:`from_folder` or a state dict.

    Raises:
        InputError: if diffusers is not installed, or the two do not fit together.
    """

    kind = "ltx2"
    vae: Any
    vocoder: Any
    window: Tensor
    bands: Tensor

    def __init__(self, vae: Mapping[str, Any], vocoder: Mapping[str, Any]) -> None:
        super().__init__()
        self.channels, self.latent_rate, self.sample_rate = ltx2_layout(vae, vocoder, "the stored codec")
        self._settings = {"vae": dict(vae), "vocoder": dict(vocoder)}
        self.past, self.margin = past_latents(vae), margin_frames(vocoder)
        self.mel_rate, self.hop, self.mels = vae["sample_rate"], vae["mel_hop_length"], vae["mel_bins"]
        self.frame_samples = self.hop * self.sample_rate // self.mel_rate
        self.lookahead = (self.margin - 1) * self.frame_samples
        self.vae, self.vocoder = build_part(VAE, vae), build_part(VOCODER, vocoder)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("bands", _bands(self.mel_rate, self.mels), persistent=False)
        self.eval().requires_grad_(False)

    @classmethod
    def from_folder(cls, folder: str | Path) -> Ltx2AudioCodec:
        """The models in ``audio_vae/`` and ``vocoder/`` of ``folder``, in float32.

        Raises:
            InputError: if one is missing, cannot be read, or they do not fit together.
        """
        (vae_settings, vae), (vocoder_settings, vocoder) = load_part(folder, VAE), load_part(folder, VOCODER)
        codec = cls(vae_settings, vocoder_settings)
        codec.vae.load_state_dict(vae.state_dict())
        codec.vocoder.load_state_dict(vocoder.state_dict())
        return codec

    def settings(self) -> dict[str, Any]:
        """What the constructor needs to rebuild this codec."""
        return self._settings

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over kind, settings and weights; taken once, for they do not change."""
        return fingerprint(self.kind, self.settings(), self.state_dict())

    def fit(self, waves: Iterable[Tensor]) -> Ltx2AudioCodec:
        """Nothing to do: it is trained."""
        return self

    @torch.no_grad()
    def encode(self, wave: Tensor) -> Tensor:
        """(B, S) float in [-1, 1] at 24 kHz -> (B, floor(S / 960), C).

        Raises:
            InputError: if ``wave`` is not (B, S).
        """
        if wave.ndim != 2:
            raise InputError(f"a sound must be (batch, samples), got {tuple(wave.shape)}; add the batch dimension")
        count = wave.shape[1] // (FRAMES * self.frame_samples)
        if count == 0:
            return torch.zeros(len(wave), 0, self.channels, device=self.window.device)
        return self._encode_mel(self.log_mel(wave))[:, 1:count + 1]

    def log_mel(self, wave: Tensor) -> Tensor:
        """(B, S) at 24 kHz -> (B, F, M), frame f centred at f x 10 ms."""
        import torchaudio

        x = torchaudio.functional.resample(wave.to(self.window), self.sample_rate, self.mel_rate)
        spectrum = torch.stft(x, WINDOW, self.hop, window=self.window, center=True, pad_mode="reflect",
                              return_complex=True).abs()
        return torch.log((spectrum.transpose(1, 2) @ self.bands).clamp_min(FLOOR))

    def _encode_mel(self, mel: Tensor) -> Tensor:
        """(B, F, M) -> (B, ceil(F / 4), C), the first latent with one frame."""
        stereo = mel[:, None].expand(-1, self.vae.config.in_channels, -1, -1)
        z = self.vae.encode(stereo).latent_dist.mode()  # (B, z, T, M / 4)
        return (z.transpose(1, 2).flatten(2) - self.vae.latents_mean) / self.vae.latents_std

    @cached_property
    def silence(self) -> Tensor:
        """(1, C) the latent of the moment before a stream."""
        with torch.no_grad():
            quiet = torch.full((1, 1, self.mels), FLOOR, device=self.window.device).log()
            return self._encode_mel(quiet)[0]

    @torch.no_grad()
    def decode_mel(self, latents: Tensor) -> Tensor:
        """(B, T, C), the first latent with one frame -> (B, channels, 4 T - 3, M)."""
        z = latents.to(self.window) * self.vae.latents_std + self.vae.latents_mean
        return self.vae.decode(z.unflatten(2, (-1, self.mels // FRAMES)).transpose(1, 2)).sample

    @torch.no_grad()
    def sound(self, mel: Tensor) -> Tensor:
        """(B, channels, F, M) -> (B, 240 F)."""
        return self.vocoder(mel).mean(1)

    def decoder(self) -> Ltx2Decoder:
        """A fresh streaming decoder."""
        return Ltx2Decoder(self)

    def decode(self, latents: Tensor) -> Tensor:
        """(T, C) -> (960 T,). Also (B, T, C) -> (B, 960 T), side by side."""
        if latents.ndim == 2:
            return self.decode(latents[None])[0]
        if not latents.shape[1]:
            return torch.zeros(len(latents), 0, device=self.window.device)
        whole = torch.cat([self.silence.to(self.window).expand(len(latents), -1, -1), latents.to(self.window)], 1)
        return self.sound(self.decode_mel(whole))[:, :latents.shape[1] * FRAMES * self.frame_samples]


def _bands(rate: int, mels: int) -> Tensor:
    """(bins, M) slaney filters."""
    import torchaudio

    return torchaudio.functional.melscale_fbanks(WINDOW // 2 + 1, 0.0, rate / 2, mels, rate, "slaney", "slaney")
