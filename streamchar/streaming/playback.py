"""The playback clock: when each chunk is due, how early or late it was, and how far ahead of the listener we are.

Playing starts when the first chunk is ready and never pauses: chunk k is due when the chunks before it have been
played. A chunk that is ready after that is a deadline miss.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from streamchar.clock import ChunkClock


class PlaybackClock:
    """Deadlines of one stream (or of several that are generated as one batch).

    Args:
        clock: the chunk grid.
        now: a clock in seconds; tests give their own.
        first: number of the stream's first chunk (another than 0 where it goes on from a saved memory).
    """

    def __init__(self, clock: ChunkClock, now: Callable[[], float] = time.perf_counter, first: int = 0) -> None:
        self.clock, self.now, self.first = clock, now, first
        self.missed = 0
        self.worst_late_s = 0.0
        self._start: float | None = None
        self._lock = threading.Lock()

    @property
    def started(self) -> bool:
        """Whether the first chunk has been delivered."""
        return self._start is not None

    def due(self, k: int) -> float | None:
        """When chunk ``k`` must be ready, on ``now``'s scale; None before playing has started."""
        if self._start is None:
            return None
        return self._start + float(self.clock.chunk_start(k) - self.clock.chunk_start(self.first))

    def delivered(self, k: int) -> float:
        """Chunk ``k`` is ready: seconds that were to spare, negative where it is late; the first one starts playing."""
        with self._lock:
            at = self.now()
            if self._start is None:
                self._start = at
            spare = self._start + float(self.clock.chunk_start(k) - self.clock.chunk_start(self.first)) - at
            if spare < -1e-6:
                self.missed += 1
                self.worst_late_s = max(self.worst_late_s, -spare)
            return spare

    def lead(self, k: int) -> float:
        """Seconds of playback that lie between the listener and the start of chunk ``k``; 0 before playing starts."""
        due = self.due(k)
        return 0.0 if due is None else due - self.now()
