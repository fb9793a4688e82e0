"""Roles as low-rank adapters on one frozen denoiser: student and critic over the weights of their teacher.

Each role is a model of its own whose matrices are the base's very tensors with adapters of peft beside them. So no
switch says whose turn it is: one that is thrown between a forward pass and the recomputation of its activations in the
backward pass would mix roles up.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from streamchar.denoiser.adapter_config import AdapterConfig
from streamchar.denoiser.model import Denoiser
from streamchar.errors import InputError


def adapted(base: Denoiser, config: AdapterConfig, name: str) -> Denoiser:
    """A denoiser on the weights of ``base``, which are shared and freeze, with adapters that learn.

    At first it computes what the base does. Its new parameters are called ``blocks.N.PART.lora_A.NAME.weight`` (rank,
    in) and ``...lora_B...`` (out, rank); A is drawn from torch's generator.

    Raises:
        InputError: where peft is not installed.
    """
    peft = _peft()
    role = deepcopy(base, {id(p): p for p in base.parameters()})
    peft.inject_adapter_in_model(
        peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets), lora_dropout=0.0),
        role, adapter_name=name)
    return role


@torch.no_grad()
def merged(model: Denoiser) -> dict[str, Tensor]:
    """Weights of the plain denoiser that computes what ``model`` does, ``W + alpha / rank * B A``; the base's own stay
    as they are."""
    lora = _peft().tuners.lora.LoraLayer
    found = {name.replace(".base_layer.", "."): value for name, value in model.state_dict().items()
             if ".lora_" not in name}
    for name, part in model.named_modules():
        if isinstance(part, lora):
            found[f"{name}.weight"] = sum((part.get_delta_weight(adapter) for adapter in part.active_adapters),
                                          found[f"{name}.weight"])
    return found


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InputError("roles=lora needs peft: pip install 'streamchar[train]', or use roles=full") from error
    return peft
