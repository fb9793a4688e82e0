"""A device that is only pretended: tensors say that they lie there, a CPU computes, and every wait is noted.

What goes wrong on a GPU alone is found without one: tensors of two devices in one operation, and operations that make
the host wait for the device (reading a value, shapes that depend on values, copies from memory that is not pinned).
It knows nothing of kernels, streams and timing. It calls itself ``meta``, a device that every build of torch knows and
that needs no driver.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
ROOT = Path(__file__).resolve().parents[1]
aten = torch.ops.aten
SHAPED_BY_VALUES = (aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.unique_consecutive,
                    aten.bincount)
MIXED = (aten._to_copy, aten.copy_, aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_)
_pinned: set[int] = set()


class Far(Tensor):
    """A tensor that says it lies on the device; ``near`` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        far = Tensor._make_wrapper_subclass(cls, near.shape, near.stride(), near.storage_offset(), dtype=near.dtype,
                                            device=DEVICE, requires_grad=near.requires_grad)
        far.near = near.detach()
        return far

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Far({self.near!r})"

    def tolist(self) -> Any:
        return self.to("cpu").tolist()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved as any tensor."""
        return self.near.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError("a pretended tensor was used outside of far_device()")


class FarDevice(TorchDispatchMode):
    """Computes on the CPU for pretended tensors; ``waits`` holds what made the host wait, each with its place."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        far = [x for x in leaves if isinstance(x, Far)]
        device = kwargs.get("device")
        to_far = device is not None and torch.device(device).type == "meta"
        if not far and not to_far:
            return func(*args, **kwargs)
        packet = func.overloadpacket
        if packet not in MIXED and any(x.ndim for x in leaves if not isinstance(x, Far)):
            raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found the far one and cpu")
        self._note(func, packet, args, kwargs)
        near_args, near_kwargs = tree_map(lambda x: x.near if isinstance(x, Far) else x, (args, kwargs))
        if to_far:
            near_kwargs = {**near_kwargs, "device": torch.device("cpu")}
        if packet is aten._to_copy:  # a real copy, whatever the device of both
            near_kwargs.pop("non_blocking", None)
            out = func(*near_args, **near_kwargs)
            return Far(out) if device is None or to_far else out
        out = func(*near_args, **near_kwargs)
        if packet is aten.copy_ and not isinstance(args[0], Far):
            return args[0]
        wrapped = tree_map(lambda x: Far(x) if isinstance(x, Tensor) else x, out)
        return return_and_correct_aliasing(func, args, kwargs, wrapped)

    def _note(self, func: Any, packet: Any, args: Any, kwargs: Any) -> None:
        """Keep what the host would have waited for."""
        if packet in SHAPED_BY_VALUES or packet in (aten._local_scalar_dense, aten.equal, aten.is_nonzero):
            self._wait(str(func))
        elif packet in (aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_):
            for index in args[1]:
                if index is not None and (not isinstance(index, Far) or index.dtype in (torch.bool, torch.uint8)):
                    self._wait(f"{func} by {'a mask' if isinstance(index, Far) else 'a tensor of the host'}")
        elif packet is aten._to_copy and kwargs.get("device") is not None:
            self._copy(args[0], torch.device(kwargs["device"]).type == "meta", kwargs.get("non_blocking", False))
        elif packet is aten.copy_:
            self._copy(args[1], isinstance(args[0], Far), (*args, False)[2] or kwargs.get("non_blocking", False))

    def _copy(self, source: Tensor, to_far: bool, non_blocking: bool) -> None:
        if not source.numel():
            return
        if isinstance(source, Far) and not to_far:
            self._wait("a copy to the host")
        elif not isinstance(source, Far) and to_far and not (non_blocking and id(source) in _pinned):
            self._wait("a copy from memory that is not pinned" if source.ndim else "a number sent to the device")

    def _wait(self, what: str) -> None:
        frames = [f for f in traceback.extract_stack() if str(ROOT) in f.filename and "/.venv/" not in f.filename
                  and not f.filename.endswith("far_device.py")]
        where = f"{Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno}" if frames else "?"
        self.waits.append(f"{what} at {where}")


def _pin(self: Tensor, *_: Any) -> Tensor:
    pinned = self.clone()
    _pinned.add(id(pinned))
    _kept.append(pinned)  # so that no other tensor gets its id
    return pinned


_kept: list[Tensor] = []


@contextmanager
def far_device() -> Iterator[FarDevice]:
    """Inside, ``.to("meta")`` works, and what is computed there is computed by the CPU."""
    generator, tensor, autocast = torch.Generator, torch.tensor, torch.is_autocast_enabled

    def made(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        return tensor(data, **options) if device is None else tensor(data, **options).to(device)

    with (patch.object(Tensor, "pin_memory", _pin), patch("torch.tensor", made),
          patch("torch.Generator", lambda device="cpu": generator("cpu")),
          patch("torch.is_autocast_enabled", lambda kind: kind != "meta" and autocast(kind)), FarDevice() as mode):
        yield mode
    _pinned.clear()
    _kept.clear()
