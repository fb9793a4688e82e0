"""Parts of tensors and whole ones: a checkpoint holds whole tensors by name, whatever the strategy that trained them.

A parameter is of one of three kinds: plain (every rank has all of it), a ``DTensor`` of FSDP2 (every rank has some of
it along one dimension), or one that DeepSpeed's ZeRO-3 has taken apart (``ds_tensor``: an equal, padded piece of the
flattened parameter). This file alone knows of the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


def shape_of(parameter: Tensor) -> torch.Size:
    """The whole shape; that of a parameter taken apart by ZeRO-3 is not its own."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def is_shared_out(parameter: Tensor) -> bool:
    """Whether this rank has only a part."""
    return isinstance(parameter, DTensor) or hasattr(parameter, "ds_tensor")


def local(parameter: Tensor) -> Tensor:
    """This rank's part, sharing the parameter's memory; after writing into it, :func:`refresh` the parameter."""
    if isinstance(parameter, DTensor):
        return parameter.to_local().detach()
    return getattr(parameter, "ds_tensor", parameter).detach()


def whole(value: Tensor, like: Tensor | None = None) -> Tensor:
    """The whole of this rank's part ``value`` of something shared out as ``like`` is; a collective.

    Args:
        value: a part, as :func:`local` gives it; without ``like``, a parameter, or any tensor.
        like: the parameter whose sharing out it follows.
    """
    if like is None:
        value, like = local(value), value
    if isinstance(like, DTensor):
        return DTensor.from_local(value, like.device_mesh, like.placements, run_check=False, shape=like.shape,
                                  stride=like.stride()).full_tensor()
    if hasattr(like, "ds_tensor"):
        pieces = value.new_empty(dist.get_world_size() * value.numel())
        dist.all_gather_into_tensor(pieces, value.contiguous())
        shape = shape_of(like)
        return pieces[:shape.numel()].view(shape)
    return value


def part_of(full: Tensor, like: Tensor) -> Tensor:
    """What this rank holds of ``full`` where it is shared out as ``like`` is; no communication."""
    if isinstance(like, DTensor):
        shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
        for dim, (size, start) in enumerate(zip(shape, offset, strict=True)):
            full = full.narrow(dim, min(start, full.shape[dim]), size)
        return full
    if hasattr(like, "ds_tensor"):
        size = like.ds_tensor.numel()
        padded = F.pad(full.flatten(), (0, size * dist.get_world_size() - full.numel()))
        return padded.narrow(0, dist.get_rank() * size, size).view_as(like.ds_tensor)
    return full


@torch.no_grad()
def copy_whole(parameter: Tensor, full: Tensor) -> None:
    """Copy a whole tensor into a parameter, each rank its own part."""
    local(parameter).copy_(part_of(full, parameter))
    refresh([parameter])


def refresh(parameters: Any) -> None:
    """Make what ZeRO-3 keeps whole (small parameters) follow their parts again; a collective there."""
    for parameter in parameters:
        if hasattr(parameter, "ds_tensor") and parameter.numel():
            parameter.data.copy_(whole(parameter))


def gathered(tensors: Mapping[str, Tensor], keep: bool, likes: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Whole tensors by name, one after the other; ranks that do not ``keep`` them only take part.

    Those shared out are moved to the CPU, so that never more than one is whole on the device. ``likes``: the parameters
    whose parts ``tensors`` are, where they are not parameters themselves.
    """
    found = {}
    for name, tensor in tensors.items():
        like = likes[name] if likes is not None else tensor
        full = whole(tensor, like) if likes is not None else whole(tensor)
        if keep:
            found[name] = full.cpu() if is_shared_out(like) else full
    return found


def wrong_shapes(own: Mapping[str, Tensor], given: Mapping[str, Any]) -> list[str]:
    """Tensors of ``given`` that ``own`` lacks or has in another shape, in words."""
    found = []
    for name, value in given.items():
        if name not in own or shape_of(own[name]) != value.shape:
            have = tuple(shape_of(own[name])) if name in own else "nothing of that name"
            found.append(f"{name} is {tuple(value.shape)} in it, this run has {have}")
    return found
