"""A function over tensors of fixed shapes whose arguments and results stay in place: on CUDA it becomes a graph.

Without CUDA the same buffers are filled and the function is called, so that whatever depends on their staying in place
can be tested anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
WARM_UPS = 3


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors inside nested dataclasses, lists and tuples, in order."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value) and not isinstance(value, type):
        return [t for f in fields(value) for t in tensors_of(getattr(value, f.name))]
    return [t for part in value for t in tensors_of(part)] if isinstance(value, list | tuple) else []


def with_tensors(value: T, tensors: Iterator[Tensor]) -> T:
    """The same nest with other tensors, taken in the order of :func:`tensors_of`."""
    if isinstance(value, Tensor):
        return next(tensors)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        changed: dict[str, Any] = {f.name: with_tensors(getattr(value, f.name), tensors) for f in fields(value)}
        return replace(value, **changed)
    if isinstance(value, list | tuple):
        return type(value)([with_tensors(part, tensors) for part in value])
    return value


@dataclass
class _Recorded:
    """Buffers of one set of shapes, what was last copied into them, and what computes ``result`` from them."""

    buffers: list[Tensor]
    last: list[tuple[Tensor, int] | None]
    result: Any
    run: Callable[[], None]


class StaticCall:
    """``fn``, recorded at the first call with each set of shapes.

    Args:
        fn: takes and returns nests of tensors (see :func:`tensors_of`); must not wait for the device.
        adopt: positions of arguments that are another static call's lent result: not copied while it is the same one.
        lend: results are the buffers themselves, valid until the next call, in place of copies.
        pool: memory that CUDA graphs of one model share; they must never run at the same time.
        urgent: its kernels go before those of other CUDA streams, wherever the device has room for one.
    """

    def __init__(self, fn: Callable[..., Any], adopt: frozenset[int] = frozenset(), lend: bool = False,
                 pool: Any = None, urgent: bool = False) -> None:
        self.fn, self.adopt, self.lend, self.pool, self.urgent = fn, adopt, lend, pool, urgent
        self._recorded: dict[tuple[Any, ...], _Recorded] = {}

    @property
    def recorded(self) -> int:
        """How many sets of shapes have been recorded."""
        return len(self._recorded)

    def __call__(self, *arguments: Any) -> Any:
        """As ``fn``, without gradient."""
        tensors = tensors_of(arguments)
        key = tuple((t.shape, t.dtype) for t in tensors)
        with torch.inference_mode(False), torch.no_grad():  # buffers must outlive a caller's inference mode
            call = self._recorded.get(key)
            if call is None:
                call = self._recorded[key] = self._record(arguments)
            for i, tensor in enumerate(tensors):
                if not _holds(call.buffers[i], call.last[i], tensor):
                    call.buffers[i].copy_(tensor)
                    call.last[i] = None if tensor.is_inference() else (tensor, tensor._version)
            call.run()
            if self.lend:
                return call.result
            return with_tensors(call.result, iter([t.clone() for t in tensors_of(call.result)]))

    def _record(self, arguments: tuple[Any, ...]) -> _Recorded:
        held = [part if i in self.adopt else with_tensors(part, iter([_own(t) for t in tensors_of(part)]))
                for i, part in enumerate(arguments)]
        buffers = tensors_of(held)
        cuda = bool(buffers) and buffers[0].is_cuda
        result, run = self._graph(held, buffers[0].device) if cuda else self._plain(held)
        return _Recorded(buffers, [None] * len(buffers), result, run)

    def _plain(self, held: list[Any]) -> tuple[Any, Callable[[], None]]:
        first = self.fn(*held)
        result = with_tensors(first, iter([_own(t) for t in tensors_of(first)]))

        def run() -> None:
            for buffer, new in zip(tensors_of(result), tensors_of(self.fn(*held)), strict=True):
                buffer.copy_(new)

        return result, run

    def _graph(self, held: list[Any], device: torch.device) -> tuple[Any, Callable[[], None]]:
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):  # kernels choose their work space and compile before they are recorded
            for _ in range(WARM_UPS):
                self.fn(*held)
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # another thread may be decoding the chunk before: only this thread's calls are recorded and restricted
        stream = torch.cuda.Stream(device, priority=-1) if self.urgent else None  # a graph keeps its stream's priority
        with torch.cuda.graph(graph, pool=self.pool, stream=stream, capture_error_mode="thread_local"):
            result = self.fn(*held)
        return result, graph.replay


def _own(tensor: Tensor) -> Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _holds(buffer: Tensor, last: tuple[Tensor, int] | None, tensor: Tensor) -> bool:
    """Whether ``buffer`` has the values of ``tensor`` already: it is that tensor, or was filled from it unchanged."""
    if buffer.data_ptr() == tensor.data_ptr():
        return True
    return last is not None and last[0] is tensor and last[1] == tensor._version
