"""Says whose work it was that the device's memory did not suffice for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from streamchar.errors import DeviceMemoryError

_CPU = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not allocate, on a GPU or in the computer's own memory."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _CPU)


@contextmanager
def at_work(doing: str) -> Iterator[None]:
    """Computing ``doing``, such as "the critic's backward pass"; the innermost one is named.

    Raises:
        DeviceMemoryError: in place of torch's own error, which tells of bytes alone.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        cause = str(error).strip().splitlines()[0]
        raise DeviceMemoryError(doing, cause) from error
