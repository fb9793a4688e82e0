"""Says which loader process died, on which rank and what to do, however its death is met.

A killed worker shows as torch's own error, raised from a signal handler at any moment of the training step, or as a
broken connection that names nobody; which of them comes first is chance.
"""

from __future__ import annotations

import pickle
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from streamchar.errors import StreamCharError

BROKEN = (EOFError, ConnectionError, pickle.UnpicklingError)
"""What the other end of a connection meets when a process dies; a descriptor on its way is a RuntimeError (ancdata)."""
WAIT_S = 5.0
"""Until a process whose connection broke is seen to be dead."""
_REMEDY = {signal.SIGKILL: "the machine was probably out of memory (its log or the cluster's accounting says so): "
                           "lower data.num_workers or data.batch_size",
           signal.SIGBUS: "shared memory was full or a shard was cut while it was read: enlarge /dev/shm, lower "
                          "data.num_workers, or look at the shards"}


class WatchedLoader(DataLoader):
    """A DataLoader of ready batches whose lost workers are told by :func:`lost_worker`; ``rank``: whose it is."""

    def __init__(self, batches: IterableDataset, workers: int, rank: int) -> None:
        super().__init__(batches, batch_size=None, num_workers=workers, collate_fn=_as_it_is)
        self.rank = rank
        self.workers: Sequence[BaseProcess] = ()

    def __iter__(self) -> Any:
        batches = super().__iter__()
        self.workers = getattr(batches, "_workers", ())
        return self._watched(batches)

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, *BROKEN) as error:
                found = self.lost_worker(error)
                if found is None:
                    raise
                raise found from error
            yield batch

    def lost_worker(self, error: BaseException) -> StreamCharError | None:
        """The error to raise in the place of ``error``; None where that does not come from a worker's death."""
        told = re.search(r"DataLoader worker \(pid\S* (\d+)", str(error))
        if told is None and not isinstance(error, BROKEN) and "ancdata" not in str(error):
            return None
        if told is None:
            ends = [worker.sentinel for worker in self.workers]
            with suppress(RuntimeError):  # torch's handler, now
                connection.wait(ends, WAIT_S)
            over = connection.wait(ends, 0)
            dead = {worker.pid for worker in self.workers if worker.sentinel in over}
        else:
            dead = {int(told[1])}
        for number, worker in enumerate(self.workers):
            if worker.pid in dead:
                with suppress(RuntimeError):
                    worker.join(WAIT_S)
                worker.join(WAIT_S)
                return StreamCharError(
                    f"loader worker {number} of {len(self.workers)} (pid {worker.pid}) of rank {self.rank} "
                    f"{_end(worker.exitcode)}. The same command goes on from the newest checkpoint")
        return None


def _end(code: int | None) -> str:
    """How a process ended, and the remedy."""
    if code is None or code >= 0:
        return f"ended with exit code {code}; its own message is above"
    number = signal.Signals(-code)
    return f"was killed by {number.name}; {_REMEDY.get(number, 'look for who sent it')}"


def _as_it_is(batch: Any) -> Any:
    return batch
