"""Size and geometry of the joint audio-video denoiser."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class DenoiserConfig:
    """Architecture of the denoiser; latent channels come from the codecs when the run is built."""

    video_channels: int = 48
    """Channels of a video latent (set from the video codec when training)."""
    audio_channels: int = 128
    """Channels of an audio latent (set from the audio codec when training)."""
    patch: int = 2
    """Spatial patch: patch x patch latent pixels make one token (temporal patch is 1)."""
    width: int = 3072
    """Model width."""
    layers: int = 30
    """Transformer blocks."""
    heads: int = 24
    """Attention heads; width / heads must be even."""
    ffn: int = 14336
    """Hidden width of the video expert's FFN."""
    audio_ffn: int = 14336
    """Hidden width of the audio expert's FFN."""
    time_dim: int = 256
    """Width of the sinusoidal embedding of t."""
    caption_dim: int = 0
    """Width of caption states for cross-attention; 0 builds no cross-attention."""
    caption_bias: bool = False
    """In place of cross-attention one learned vector per block: what Wan's adds where it is given an empty caption."""
    pretrained: str | None = None
    """Local folder of a Wan transformer in diffusers' layout (Wan 2.2 TI2V-5B, Wan 2.1 T2V), or of its pipeline, from
    which ``stage=teacher`` starts. None: fresh weights."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""
    sink_gap: float = 2.0
    """Sink's first latent sits this many chunk lengths before the chunk, whatever the chunk's number."""
    ref_gap: float = 3.0
    """The reference sits this many chunk lengths before the chunk."""
    frame_condition: bool = False
    """Give ``c_a`` to the video tokens too, frame by frame; the paper gives it to the audio tokens alone."""
    residual_bf16: bool = False
    """Keep the residual stream in bfloat16 under autocast (faster on CPU, a little less exact)."""

    def problems(self) -> list[str]:
        """Everything that is wrong with these values, in words."""
        found = []
        if self.width % self.heads:
            found.append(f"denoiser.width={self.width} is not divisible by denoiser.heads={self.heads}")
        elif (self.width // self.heads) % 2:
            found.append(f"denoiser.width / heads = {self.width // self.heads} must be even for rotary embedding")
        if self.patch < 1:
            found.append(f"denoiser.patch={self.patch} must be at least 1")
        if self.caption_bias and self.caption_dim:
            found.append(f"denoiser.caption_bias=true stands for the cross-attention that denoiser.caption_dim="
                         f"{self.caption_dim} builds: choose one of the two")
        return found
