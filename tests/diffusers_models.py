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
