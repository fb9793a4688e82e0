"""A denoiser started from the weights of a Wan transformer, as diffusers stores it (``WanTransformer3DModel``).

The video path is Wan's block, so its weights give its outputs: time, self-attention, tables, video expert, projections,
and cross-attention where the denoiser is built with ``caption_dim``. With ``caption_bias`` each block keeps of its
cross-attention the vector that it adds where the caption is empty. Wan has nothing for sound: the audio expert begins
as a copy of the video expert where it is as wide, else with fresh weights like the other projections of sound.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from streamchar.denoiser.model import Denoiser
from streamchar.denoiser.wan_size import WAN, misfits
from streamchar.diffusers_folder import part_folder
from streamchar.errors import CheckpointError
from streamchar.hub.stored_tensors import StoredTensors

log = logging.getLogger(__name__)

_THEIRS = {
    "video_in.": "patch_embedding.", "video_out.": "proj_out.", "scale_shift_table": "scale_shift_table",
    "time_embedding.": "condition_embedder.time_embedder.", "time_projection.": "condition_embedder.time_proj.",
    "caption_in.": "condition_embedder.text_embedder."}
_THEIRS_IN_BLOCK = {
    "attn1.to_out.": "attn1.to_out.0.", "attn1.": "attn1.", "attn2.to_out.": "attn2.to_out.0.", "attn2.": "attn2.",
    "norm2.": "norm2.", "scale_shift_table": "scale_shift_table", "ffn_video.up.": "ffn.net.0.proj.",
    "ffn_video.down.": "ffn.net.2."}
"""Beginnings of our names and of theirs, the longer ones first."""


@dataclass
class WanImport:
    """Names: of theirs those ``used`` and ``unused``, of ours those that are ``new``."""

    used: list[str]
    unused: list[str]
    new: list[str]

    def __str__(self) -> str:
        return (f"{len(self.used)} of {len(self.used) + len(self.unused)} tensors used; unused: "
                f"{_short(self.unused) or 'none'}; new: {_short(self.new) or 'none'}")


def wan_name(name: str) -> str | None:
    """Name in a Wan transformer of our parameter ``name``; None for what Wan does not have."""
    block = re.match(r"blocks\.\d+\.", name)
    start, rules = (block[0], _THEIRS_IN_BLOCK) if block else ("", _THEIRS)
    rest = name[len(start):]
    return next((start + theirs + rest[len(ours):] for ours, theirs in rules.items() if rest.startswith(ours)), None)


@torch.no_grad()
def load_wan(model: Denoiser, folder: str | Path) -> WanImport:
    """Copy a Wan transformer's weights into ``model``, tensor by tensor; says in one line what was used.

    Args:
        model: a denoiser of its sizes, on any device.
        folder: of the transformer, or of a pipeline with ``transformer/`` in it.

    Raises:
        InputError: if the folder holds no such model, or one whose config.json tells other sizes.
        CheckpointError: if tensors are missing or of other shapes.
    """
    if wrong := misfits(model.config, folder):
        raise CheckpointError(wrong[0])
    stored = StoredTensors(part_folder(folder, WAN))
    names, own = names_in_wan(model), model.state_dict()
    _check(names, own, stored, folder)
    for ours, theirs in names.items():
        own[ours].copy_(as_ours(ours, stored[theirs], model.config.patch))
    used = set(names.values())
    if model.config.caption_bias:
        used |= _fold_empty_caption(model, stored)
    report = WanImport(sorted(used), sorted(set(stored) - used),
                       [name for name in own if name not in names and not name.endswith("caption_bias")])
    log.info("denoiser started from %s: %s", folder, report)
    return report


def names_in_wan(model: Denoiser) -> dict[str, str]:
    """Our parameters that Wan has, and their names there."""
    found = {name: theirs for name in model.state_dict() if (theirs := wan_name(name))}
    if model.config.audio_ffn == model.config.ffn:
        found |= {name: theirs for name in model.state_dict() if ".ffn_audio." in name
                  and (theirs := wan_name(name.replace(".ffn_audio.", ".ffn_video.")))}
    return found


def as_ours(name: str, tensor: Tensor, patch: int) -> Tensor:
    """Their tensor in our layout: a patch's pixels go by (channel, row, column) on both ways."""
    if name == "video_in.weight":
        return tensor.flatten(1)  # (D, C, 1, p, p)
    if name.startswith("video_out."):
        return tensor.unflatten(0, (patch, patch, -1)).movedim(2, 0).flatten(0, 2)  # theirs goes by (row, column, C)
    return tensor


def stored_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that :func:`as_ours` gives to a tensor of ``shape``."""
    return (shape[0], prod(shape[1:])) if name == "video_in.weight" else shape


def _check(names: dict[str, str], own: dict[str, Tensor], stored: StoredTensors, folder: str | Path) -> None:
    """Refuse before anything is read: a half-loaded model is never left behind."""
    wrong = [f"{theirs} is missing" for theirs in names.values() if theirs not in stored]
    wrong += [f"{theirs} is {shape}, {ours} here {tuple(own[ours].shape)}" for ours, theirs in names.items()
              if theirs in stored
              and (shape := stored_shape(ours, stored.shape(theirs))) != tuple(own[ours].shape)]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise CheckpointError(f"the weights in {folder} are not those of its config.json: {'; '.join(wrong[:3])}{more};"
                              " copy the folder again")


def _fold_empty_caption(model: Denoiser, stored: StoredTensors) -> set[str]:
    """Give every block what its cross-attention adds to any token where all caption states are zero: all keys are
    alike, so the softmax gives the one value, whatever the query. Returns the names that went into it."""
    def linear(name: str, x: Tensor) -> Tensor:
        used.update((f"{name}.weight", f"{name}.bias"))
        return F.linear(x, stored[f"{name}.weight"].float(), stored[f"{name}.bias"].float())

    used: set[str] = set()
    first, second = (f"condition_embedder.text_embedder.linear_{i}" for i in (1, 2))
    state = linear(second, F.gelu(linear(first, torch.zeros(stored.shape(f"{first}.weight")[1])), approximate="tanh"))
    for i, block in enumerate(model.blocks):
        bias: Tensor = block.caption_bias  # type: ignore[assignment]
        bias.copy_(linear(f"blocks.{i}.attn2.to_out.0", linear(f"blocks.{i}.attn2.to_v", state)))
    return used


def _short(names: Iterable[str]) -> str:
    """Parts of the model instead of all their tensors: ``blocks.*.attn2, audio_in``."""
    depth = {"blocks": 3, "condition_embedder": 2}
    parts = (re.sub(r"^blocks\.\d+\.", "blocks.*.", name).split(".") for name in names)
    return ", ".join(dict.fromkeys(".".join(part[:depth.get(part[0], 1)]) for part in parts))
