"""How far LTX-2's sound decoder and vocoder look, from their settings: what a stream must keep, and wait for.

Free of torch. Every convolution of k taps and dilation d reaches (k - 1) d steps at the rate at which it works: all of
them back where it is causal, half of them each way where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from streamchar.errors import InputError

FRAMES = 4
"""Mel frames per latent."""


def past_latents(vae: Mapping[str, Any]) -> int:
    """Latents before a mel frame's own that have a part in it.

    Raises:
        InputError: if the autoencoder is not causal in time, or attends over all of it.
    """
    if vae.get("causality_axis", "height") != "height" or vae.get("mid_block_add_attention") or vae.get(
            "attn_resolutions"):
        raise InputError("an LTX-2 sound autoencoder that is not causal in time (causality_axis=height, no attention) "
                         "cannot decode a stream; use the one of LTX-2")
    levels, block = len(vae["ch_mult"]), 4  # two convolutions of three taps
    reach = 2.0 + 2 * block
    for level in range(levels):
        rate = 2**level  # steps per latent, from the coarsest level on
        reach += (vae["num_res_blocks"] + 1) * block / rate
        if level < levels - 1:
            reach += 2 / (2 * rate)
    return ceil(reach + 2 / 2 ** (levels - 1)) + 1


def margin_frames(vocoder: Mapping[str, Any]) -> int:
    """Mel frames on either side of a frame that have a part in its samples."""
    # a smoothed activation interpolates to twice the rate and back
    smooth = vocoder["antialias_kernel_size"] if vocoder.get("antialias") else 0
    reach, rate = 3.0, 1
    for factor, taps in zip(vocoder["upsample_factors"], vocoder["upsample_kernel_sizes"], strict=True):
        reach += ceil(taps / factor) / rate
        rate *= factor
        widest = max(sum((k - 1) * (d + 1) / 2 + 2 * smooth for d in dilations) for k, dilations in
                     zip(vocoder["resnet_kernel_sizes"], vocoder["resnet_dilations"], strict=True))
        reach += widest / rate
    return ceil(reach + (3 + vocoder.get("antialias_kernel_size", 12)) / rate) + 1
