"""Characters of production size with random weights, two classes of decoder, and the peer, for ``stream.py``."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.train_step import PRESETS as TRAINED
from streamchar.codecs.mel import MelCodec
from streamchar.codecs.pca_video import PcaVideoCodec
from streamchar.codecs.protocol import AudioCodec, VideoCodec
from streamchar.codecs.tae import LATENT, tae_decoder
from streamchar.hub.model_spec import ModelSpec
from streamchar.hub.random_batches import CountedUnits
from streamchar.rollout.character import Character
from streamchar.window import WindowConfig

STRIDE = 16
"""Pixels per latent of a Wan-2.2-class codec."""
_MID = TRAINED["1b"][0]
PRESETS: dict[str, ModelSpec] = {
    "tiny": replace(TRAINED["tiny"][0], denoiser=replace(TRAINED["tiny"][0].denoiser, audio_channels=96)),
    "1b": _MID,
    "5b": replace(
        _MID, window=WindowConfig(9, 9, 0.0, 3.0, 12.0, 96, 160),
        denoiser=replace(_MID.denoiser, width=3072, heads=24, ffn=14336, audio_ffn=4096),
        orchestrator=replace(_MID.orchestrator, width=2048, layers=36, heads=16, ffn=11008))}
"""Sizes as in ``conf/preset/`` with the channels of the codecs."""
LTX2_CHANNELS = 128
"""Of a sound latent; the production presets have them with either sound codec."""
SIZES = {"tiny": (48, 48), "512x512": (512, 512), "480x832": (480, 832)}
"""Pictures in pixels, height and width."""


def spec_of(preset: str, sound: str = "mel") -> ModelSpec:
    """The preset with as many channels of sound as that codec has."""
    spec = PRESETS[preset]
    channels = LTX2_CHANNELS if sound == "ltx2" else spec.denoiser.audio_channels
    return replace(spec, denoiser=replace(spec.denoiser, audio_channels=channels))


def grid_of(preset: str, size: str) -> tuple[int, int]:
    """Height and width of the video latents."""
    stride = PcaVideoCodec.spatial_stride if preset == "tiny" else STRIDE
    return SIZES[size][0] // stride, SIZES[size][1] // stride


class TinyDecoder(nn.Module):
    """A TAE-class decoder: one 1x1 convolution to four frames of 32 channels at stride 8, then TAEF2's decoder."""

    channels, spatial_stride, temporal_stride, fingerprint = 48, STRIDE, 4, "random tae"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.spread, self.frames = nn.Conv2d(channels, 4 * 4 * LATENT, 1), tae_decoder()

    def decode(self, latents: Tensor) -> Tensor:
        """(B, C, T, h, w) -> (B, 1 + 4 (T - 1), 3, 16 h, 16 w)."""
        b = latents.shape[0]
        flat = latents.to(self.spread.weight.dtype).transpose(1, 2).flatten(0, 1)
        wide = nn.functional.pixel_shuffle(self.spread(flat), 2)
        each = wide.unflatten(1, (4, LATENT)).unflatten(0, (b, -1)).flatten(1, 2)[:, 3:]  # (B, F, 32, 2h, 2w)
        pictures = self.frames(each.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        return pictures.float().clamp(0, 1).unflatten(0, (b, -1))

    def decoding_parts(self) -> list[nn.Module]:
        return [self.spread, self.frames]

    def encode(self, frames: Tensor) -> Tensor:
        raise NotImplementedError("the benchmark begins from latents")


class WanDecoder(nn.Module):
    """diffusers' Wan 2.2 autoencoder (stride 16, 48 channels) with random weights."""

    channels, spatial_stride, temporal_stride, fingerprint = 48, STRIDE, 4, "random wan"

    def __init__(self) -> None:
        super().__init__()
        from diffusers import AutoencoderKLWan

        self.vae = AutoencoderKLWan(
            base_dim=160, decoder_base_dim=256, z_dim=48, dim_mult=[1, 2, 4, 4], num_res_blocks=2,
            temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12, patch_size=2,
            scale_factor_spatial=STRIDE, scale_factor_temporal=4, latents_mean=[0.0] * 48, latents_std=[1.0] * 48)

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 48, T, h, w) -> (B, 1 + 4 (T - 1), 3, 16 h, 16 w)."""
        kind = next(self.vae.parameters()).dtype
        return self.vae.decode(latents.to(kind)).sample.float().transpose(1, 2).add(1).div(2).clamp(0, 1)

    def decoding_parts(self) -> list[nn.Module]:
        return [self.vae.decoder, self.vae.post_quant_conv]

    def encode(self, frames: Tensor) -> Tensor:
        raise NotImplementedError("the benchmark begins from latents")


def missing(kind: str) -> str:
    """Why there is no such decoder, sound or peer here; empty where there is."""
    if kind in ("wan", "peer", "ltx2") and importlib.util.find_spec("diffusers") is None:
        return "diffusers is not installed"
    return ""


def video_decoder(kind: str, spec: ModelSpec, device: torch.device) -> VideoCodec:
    """``pca`` (the tiny preset's), ``tae`` or ``wan``, with random weights on ``device``, in bf16 on CUDA."""
    with torch.device(device):
        if kind == "pca":
            codec: Any = PcaVideoCodec(spec.denoiser.video_channels)
        else:
            codec = TinyDecoder(spec.denoiser.video_channels) if kind == "tae" else WanDecoder()
    if kind != "pca" and device.type == "cuda":
        codec = codec.to(torch.bfloat16)
    return codec.eval().requires_grad_(False)


def sound_codec(kind: str, spec: ModelSpec, device: torch.device) -> AudioCodec:
    """``mel`` (phases found by iteration) or ``ltx2`` (LTX-2's autoencoder and vocoder), random weights."""
    if kind == "mel":
        return MelCodec(spec.denoiser.audio_channels).to(device)
    from streamchar.codecs.diffusers_part import model_class
    from streamchar.codecs.ltx2_audio import VAE, VOCODER, Ltx2AudioCodec

    settings = ({k: v for k, v in model_class(name)().config.items() if not k.startswith("_")}
                for name in (VAE, VOCODER))
    return Ltx2AudioCodec(*settings).to(device)


def random_character(spec: ModelSpec, decoder: VideoCodec, device: torch.device, sound: str = "mel") -> Character:
    """A few-step character of that size with random weights, on ``device``."""
    torch.manual_seed(0)
    with torch.device(device):
        denoiser, orchestrator = spec.build_denoiser(), spec.build_orchestrator(load_llm=False)
    for model in (denoiser, orchestrator):
        model.eval().requires_grad_(False)
    return Character(denoiser, orchestrator, spec.clock, spec.window, CountedUnits.of(spec), spec.diffusion, spec.size,
                     decoder, sound_codec(sound, spec, device), few_step=True)


def peer_steps(spec: ModelSpec, grid: tuple[int, int], device: torch.device, context: bool) -> Any:
    """A call that does the denoising steps' work with diffusers' Wan transformer of the same size, in bf16 on CUDA.

    context: all tokens in every step, as without a cache; False: the chunk's own video tokens alone.
    """
    from diffusers import WanTransformer3DModel

    d, clock, window = spec.denoiser, spec.clock, spec.window
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        model = WanTransformer3DModel(
            patch_size=(1, d.patch, d.patch), num_attention_heads=d.heads, attention_head_dim=d.width // d.heads,
            in_channels=d.video_channels, out_channels=d.video_channels, text_dim=64, freq_dim=d.time_dim,
            ffn_dim=d.ffn, num_layers=d.layers).to(kind).eval().requires_grad_(False)
    frames = clock.video_latents + context * (1 + window.sink_latents + window.motion_latents)
    x = torch.randn(1, d.video_channels, frames, *grid, device=device, dtype=kind)
    caption, t = torch.zeros(1, 1, 64, device=device, dtype=kind), torch.full((1,), 500.0, device=device)
    steps = len(spec.diffusion.few_steps)

    def run() -> None:
        with torch.no_grad():
            for _ in range(steps):
                model(x, t, caption, return_dict=False)

    return run
