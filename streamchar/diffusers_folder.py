"""What the ``config.json`` of a local diffusers folder says of its model. Free of torch: errors come at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from streamchar.errors import InputError

PARTS = {"WanTransformer3DModel": "transformer", "AutoencoderKLWan": "vae", "AutoencoderKLLTX2Audio": "audio_vae",
         "LTX2Vocoder": "vocoder"}
"""Model classes that are read, and where each lies in the folder of a whole pipeline."""


def part_folder(folder: str | Path, *classes: str) -> Path:
    """The folder that holds a model of one of ``classes``: ``folder`` itself, or its part where it is a whole pipeline.

    Raises:
        InputError: if neither holds a ``config.json`` of such a model.
    """
    found = ""
    for place in (Path(folder), Path(folder) / PARTS[classes[0]]):
        if (place / "config.json").is_file():
            found = str(_read(place).get("_class_name") or _read(place).get("model_type") or "of no class")
            if found in classes:
                return place
    held = f"a model {found}" if found else "no config.json"
    raise InputError(f"{folder} holds {held}; expected a diffusers folder of {' or '.join(classes)}, or of a pipeline "
                     f"with {PARTS[classes[0]]}/ in it")


def diffusers_config(folder: str | Path, *classes: str) -> dict[str, Any]:
    """The settings of a model of one of ``classes`` in a local folder.

    Raises:
        InputError: if there is none.
    """
    return _read(part_folder(folder, *classes))


def wan_vae_layout(config: Mapping[str, Any], origin: str) -> tuple[int, int]:
    """(channels, pixels per latent each way) of a Wan video autoencoder with these settings.

    Raises:
        InputError: if it codes another number of frames per latent than four.
    """
    halvings = config.get("temperal_downsample", [False, True, True])
    frames = 2 ** sum(halvings)
    if frames != 4:
        raise InputError(f"{origin} is a video autoencoder of {frames} frames per latent; chunks are made of 4")
    return config.get("z_dim", 16), 2 ** len(halvings) * (config.get("patch_size") or 1)


def ltx2_layout(vae: Mapping[str, Any], vocoder: Mapping[str, Any], origin: str) -> tuple[int, float, int]:
    """(channels, latents per second, samples per second) of LTX-2's sound autoencoder and vocoder with these settings.

    Raises:
        InputError: if one does not go on where the other ends.
    """
    rate, hop, mels = vae["sample_rate"], vae["mel_hop_length"], vae["mel_bins"]
    samples = prod(vocoder["upsample_factors"])
    out = vocoder["output_sampling_rate"]
    if samples * rate != hop * out or vocoder["in_channels"] != vae["output_channels"] * mels or mels % 4:
        raise InputError(f"{origin}: the autoencoder has {vae['output_channels']} x {mels} mel bands at {rate / hop:g} "
                         f"frames/s, the vocoder takes {vocoder['in_channels']} and makes {samples} samples a frame at "
                         f"{out} Hz; take both from one pipeline")
    return vae["latent_channels"] * mels // 4, rate / hop / 4, out


def _read(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'} cannot be read ({error}); copy the folder again") from error
    if not isinstance(config, dict):
        raise InputError(f"{folder / 'config.json'} holds no settings; copy the folder again")
    return config
