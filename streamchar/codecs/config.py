"""Which codecs a run uses. Free of torch, so that help and configuration errors come at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from streamchar.diffusers_folder import diffusers_config, ltx2_layout, wan_vae_layout
from streamchar.errors import InputError


@dataclass
class VideoCodecConfig:
    """Frames to latents and back."""

    kind: Literal["pca", "taef2", "wan", "none"] = "pca"
    """pca: fitted in closed form in seconds; taef2: a pretrained image autoencoder from ``path``; wan: Wan's video
    autoencoder from ``path``; none: sound alone, for an orchestrator trained on speech (pictures are left out)."""
    channels: int = 16
    """Channels of a latent. For taef2: 128 keeps everything (4 stacked frames x 32), fewer are a fitted PCA. wan has
    48 (2.2) or 16 (2.1) of its own, whatever is written here."""
    sigma_floor: float = 0.02
    """Channels weaker than this part of the strongest one are treated as that strong: noise is not blown up."""
    whiten: float = 0.5
    """1: every channel has unit variance; 0: natural proportions; 0.5: least decoded error for a given noise."""
    path: str | None = None
    """taef2: folder of taef2_encoder.pth and taef2_decoder.pth. wan: folder of an ``AutoencoderKLWan`` in diffusers'
    layout, or of its pipeline."""

    def layout(self) -> tuple[int, int]:
        """(channels, pixels per latent each way).

        Raises:
            InputError: where they are told by files that are not there.
        """
        if self.kind == "wan":
            return wan_vae_layout(diffusers_config(str(self.path), "AutoencoderKLWan"), str(self.path))
        return self.channels, 8

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        most = {"pca": 192, "taef2": 128}.get(self.kind, 192)
        found = []
        if not 1 <= self.channels <= most:
            found.append(f"codec.video.channels={self.channels} must be between 1 and {most} for {self.kind}")
        if not 0 < self.sigma_floor <= 1:
            found.append(f"codec.video.sigma_floor={self.sigma_floor} must be in (0, 1]")
        if not 0 <= self.whiten <= 1:
            found.append(f"codec.video.whiten={self.whiten} must be in [0, 1]")
        if self.kind == "taef2" and not self.path:
            found.append("codec.video.path must name the folder of the taef2 weights")
        if self.kind == "wan":
            try:
                self.layout()
            except InputError as error:
                found.append(f"codec.video.path: {error}")
        return found


@dataclass
class AudioCodecConfig:
    """Sound to latents and back."""

    kind: Literal["mel", "lyra", "ltx2"] = "mel"
    """mel: log-mel frames and a PCA fitted in seconds, with an untrained vocoder; lyra: speech codec from ``path``;
    ltx2: LTX-2's sound autoencoder and vocoder from ``path`` (25 Hz x 128, 24 kHz; sound lags by .2 s)."""
    channels: int = 96
    """Channels of a mel latent (lyra has 64 x stack, ltx2 128 of its own, whatever is written here)."""
    stack: int = 4
    """Frames per latent: 10 ms mel frames (4 = 25 Hz latents) or 20 ms lyra frames (2 = 25 Hz x 128)."""
    mels: int = 80
    """Bands of the mel spectrum."""
    level_floor: float = 1e-2
    """Added to mel magnitudes before the logarithm: quieter detail is not coded."""
    sigma_floor: float = 0.02
    """Channels weaker than this part of the strongest one are treated as that strong: noise is not blown up."""
    whiten: float = 0.5
    """1: every channel has unit variance; 0: natural proportions; 0.5: least decoded error for a given noise."""
    iterations: int = 8
    """Phase iterations per latent of the vocoder; more sound better and cost more."""
    path: str | None = None
    """lyra: folder of its tflite files. ltx2: folder of a pipeline in diffusers' layout, with ``audio_vae/`` and
    ``vocoder/``."""

    def layout(self) -> tuple[int, float, int]:
        """(channels, latents per second, samples per second).

        Raises:
            InputError: where they are told by files that are not there.
        """
        if self.kind == "ltx2":
            folder = str(self.path)
            vae, vocoder = diffusers_config(folder, "AutoencoderKLLTX2Audio"), diffusers_config(folder, "LTX2Vocoder")
            return ltx2_layout(vae, vocoder, folder)
        if self.kind == "lyra":
            return 64 * self.stack, 50.0 / self.stack, 16000
        return self.channels, 100.0 / self.stack, 16000

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if self.kind == "mel" and not 1 <= self.channels <= self.stack * self.mels:
            found.append(f"codec.audio.channels={self.channels} must be between 1 and stack x mels = "
                         f"{self.stack * self.mels}")
        for name in ("stack", "mels", "iterations"):
            if getattr(self, name) < 1:
                found.append(f"codec.audio.{name}={getattr(self, name)} must be at least 1")
        if self.level_floor <= 0:
            found.append(f"codec.audio.level_floor={self.level_floor} must be positive")
        if not 0 < self.sigma_floor <= 1:
            found.append(f"codec.audio.sigma_floor={self.sigma_floor} must be in (0, 1]")
        if not 0 <= self.whiten <= 1:
            found.append(f"codec.audio.whiten={self.whiten} must be in [0, 1]")
        if self.kind == "lyra" and not self.path:
            found.append("codec.audio.path must name the folder of the lyra tflite files")
        if self.kind == "ltx2":
            try:
                self.layout()
            except InputError as error:
                found.append(f"codec.audio.path: {error}")
        return found


@dataclass
class CodecConfig:
    """Both codecs of a run. An untrained kind is fitted on a sample of the training clips by stage=encode."""

    video: VideoCodecConfig = field(default_factory=VideoCodecConfig)
    """Frames to latents."""
    audio: AudioCodecConfig = field(default_factory=AudioCodecConfig)
    """Sound to latents."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        return self.video.problems() + self.audio.problems()
