"""Models of the package diffusers, built from their settings or read from a local folder; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from streamchar.diffusers_folder import diffusers_config, part_folder
from streamchar.errors import InputError


def model_class(name: str) -> Any:
    """A model class of diffusers.

    Raises:
        InputError: if diffusers is not installed, or does not know it.
    """
    try:
        import diffusers
        from diffusers.pipelines.ltx2 import vocoder
    except ImportError as error:
        raise InputError(f"{name} needs the package diffusers ({error}); install the extra: pip install .[diffusers]"
                         ) from error
    found = getattr(diffusers, name, None) or getattr(vocoder, name, None)
    if found is None:
        raise InputError(f"diffusers {diffusers.__version__} has no {name}; a newer one: pip install .[diffusers]")
    return found


def build_part(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """A model of class ``name`` with fresh weights."""
    return model_class(name)(**settings)


def load_part(folder: str | Path, *names: str) -> tuple[dict[str, Any], nn.Module]:
    """Settings and model of one of the classes ``names`` from a local folder, in float32.

    Raises:
        InputError: if the folder holds none, or its weights cannot be read.
    """
    config = diffusers_config(folder, *names)
    try:
        model = model_class(str(config["_class_name"])).from_pretrained(
            str(part_folder(folder, *names)), local_files_only=True, torch_dtype=torch.float32, use_safetensors=True,
            low_cpu_mem_usage=False)
    except InputError:
        raise
    except Exception as error:  # every kind of damage has an exception of its own there
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the {config['_class_name']} in {folder} cannot be read ({first}); copy the folder again"
                         ) from error
    settings = {key: value for key, value in model.config.items() if not key.startswith("_")}
    return settings, model
