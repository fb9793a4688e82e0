"""Small models of diffusers' architectures with random weights, saved as their users have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

WAN_VAES: dict[str, dict[str, Any]] = {
    "2.2": {"base_dim": 8, "decoder_base_dim": 8, "z_dim": 6, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1,
            "is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,
            "temperal_downsample": [False, True, True]},
    "2.1": {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1,
            "temperal_downsample": [False, True, True]}}


def wan_vae(folder: Path, version: str = "2.2") -> torch.nn.Module:
    """An ``AutoencoderKLWan`` of Wan's layout, saved in ``folder/vae``."""
    diffusers = pytest.importorskip("diffusers", reason="needs the extra 'diffusers'")
    torch.manual_seed(0)
    settings = WAN_VAES[version]
    mean, std = torch.randn(settings["z_dim"]).tolist(), torch.rand(settings["z_dim"]).add(0.5).tolist()
    vae = diffusers.AutoencoderKLWan(**settings, latents_mean=mean, latents_std=std).eval()
    vae.save_pretrained(folder / "vae")
    return vae


LTX2_VAE: dict[str, Any] = {"base_channels": 32, "ch_mult": [1, 1, 1], "num_res_blocks": 1, "latent_channels": 2,
                            "mel_bins": 64}
LTX2_VOCODER: dict[str, Any] = {
    "in_channels": 128, "hidden_channels": 64, "upsample_kernel_sizes": [16, 15, 8, 4, 4],
    "upsample_factors": [6, 5, 2, 2, 2], "resnet_kernel_sizes": [3, 7], "resnet_dilations": [[1, 3], [1, 3]]}


def ltx2_audio(folder: Path, **changes: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """LTX-2's sound autoencoder and vocoder, saved in ``folder/audio_vae`` and ``folder/vocoder``."""
    diffusers = pytest.importorskip("diffusers", reason="needs the extra 'diffusers'")
    from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder

    torch.manual_seed(0)
    vae, vocoder = diffusers.AutoencoderKLLTX2Audio(**LTX2_VAE), LTX2Vocoder(**{**LTX2_VOCODER, **changes})
    vae.latents_mean.normal_()
    vae.latents_std.uniform_(0.5, 1.5)
    for name, p in vocoder.named_parameters():  # loud enough to compare
        if name.endswith("weight"):
            p.data.mul_(2.0)
    vae.eval().save_pretrained(folder / "audio_vae")
    vocoder.eval().save_pretrained(folder / "vocoder")
    return vae, vocoder
