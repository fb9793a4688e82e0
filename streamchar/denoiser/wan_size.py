"""Whether a denoiser has the sizes of a stored Wan transformer, told from its ``config.json`` alone. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamchar.denoiser.config import DenoiserConfig
from streamchar.diffusers_folder import diffusers_config
from streamchar.errors import InputError

WAN = "WanTransformer3DModel"


def wan_sizes(folder: str | Path) -> dict[str, Any]:
    """The fields of :class:`DenoiserConfig` that fit the transformer in ``folder``; ``caption_dim`` is its own.

    Raises:
        InputError: if there is no Wan transformer, or one of another kind than text to video.
    """
    config = diffusers_config(folder, WAN)
    channels = config["in_channels"], config.get("out_channels") or config["in_channels"]
    if channels[0] != channels[1] or config.get("image_dim") or config.get("added_kv_proj_dim"):
        raise InputError(f"{folder} is a Wan transformer that is given a picture beside the latents (in_channels="
                         f"{channels[0]}, out_channels={channels[1]}, image_dim={config.get('image_dim')}); "
                         "use one for text to video, such as Wan 2.2 TI2V-5B or Wan 2.1 T2V")
    time, height, width = config["patch_size"]
    if time != 1 or height != width:
        raise InputError(f"{folder} has patches of {time} x {height} x {width}; those read here are 1 x n x n")
    heads = config["num_attention_heads"]
    return {"video_channels": channels[0], "patch": height, "width": heads * config["attention_head_dim"],
            "layers": config["num_layers"], "heads": heads, "ffn": config["ffn_dim"], "time_dim": config["freq_dim"],
            "caption_dim": config["text_dim"]}


def misfits(config: DenoiserConfig, folder: str | Path) -> list[str]:
    """What differs between the denoiser and the transformer in ``folder``, and the line that would fit; none if all
    fits. Without cross-attention (``caption_dim=0``) a denoiser fits a transformer with any captions.

    Raises:
        InputError: see :func:`wan_sizes`.
    """
    sizes = wan_sizes(folder)
    if not config.caption_dim:
        sizes.pop("caption_dim")
    wrong = [f"{name} is {wanted} there, {getattr(config, name)} here" for name, wanted in sizes.items()
             if getattr(config, name) != wanted]
    if not wrong:
        return []
    line = ", ".join(f"{name}: {value}" for name, value in sizes.items() if name != "video_channels")
    return [f"denoiser.pretrained={folder} is of other sizes: {'; '.join(wrong)}. What fits is denoiser: {{{line}}} "
            f"with a video codec of {sizes['video_channels']} channels"]
