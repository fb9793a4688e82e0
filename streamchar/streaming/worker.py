"""A thread that does jobs in order, beside whoever gives them; errors come back to the giver, and nobody hangs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Worker(Generic[T]):
    """Does ``work(job)`` for every job that is put, one after another, in a thread of its own.

    After the first error no further job is done; the error is raised by the next :meth:`put` and by :meth:`join`.

    Args:
        name: of the thread.
        work: called in the thread.
        room: jobs that may wait; ``put`` blocks while there are as many, so that memory stays bounded.
    """

    def __init__(self, name: str, work: Callable[[T], None], room: int = 2) -> None:
        self.work = work
        self.error: BaseException | None = None
        self._jobs: queue.Queue[tuple[T] | None] = queue.Queue(room)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: T) -> None:
        """Give a job; raises the error of an earlier one."""
        self._raise()
        self._jobs.put((job,))

    def wait(self) -> None:
        """Wait until every job that was put is done; raises the error of one of them."""
        self._jobs.join()
        self._raise()

    def join(self) -> None:
        """Wait until all jobs are done and end the thread; raises the error of one of them. Safe to call twice."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self.error is None:  # else jobs are only taken, so that nobody waits for room
                    self.work(job[0])
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to whoever gave the job
                self.error = error
            finally:
                self._jobs.task_done()
        self._jobs.task_done()
