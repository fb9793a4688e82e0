"""How many streams one device can serve: chunk times measured per batch size, and a refusal where they do not fit."""

from __future__ import annotations

from collections import deque

import numpy as np

from streamchar.errors import AdmissionError

LATEST = 64


class Admission:
    """Chunk times by number of streams that are generated together.

    Args:
        budget_s: playback seconds of a chunk.
        margin: part of the budget that must stay free.
    """

    def __init__(self, budget_s: float, margin: float = 0.1) -> None:
        self.budget_s, self.margin = budget_s, margin
        self._seconds: dict[int, deque[float]] = {}

    def measured(self, streams: int, seconds: float) -> None:
        """A chunk of ``streams`` streams took ``seconds``."""
        self._seconds.setdefault(streams, deque(maxlen=LATEST)).append(seconds)

    def expected_s(self, streams: int) -> float | None:
        """Seconds of a chunk of ``streams`` streams (95th percentile of the latest); None where nothing is known.

        Sizes that were not measured: between and beyond others on a straight line, from a single smaller one in
        proportion, as if nothing were shared.
        """
        known = {n: float(np.percentile(list(s), 95)) for n, s in self._seconds.items()}
        if streams in known or not known:
            return known.get(streams)
        sizes = sorted(known)
        if len(sizes) == 1:
            return known[sizes[0]] * max(streams / sizes[0], 1.0)
        below = [n for n in sizes if n < streams][-2:]
        above = [n for n in sizes if n > streams][:1]
        first, second = (below[-1], above[0]) if below and above else below if len(below) == 2 else sizes[:2]
        slope = max((known[second] - known[first]) / (second - first), 0.0)
        return known[first] + slope * (streams - first)

    def check(self, streams: int) -> None:
        """Refuse ``streams`` streams where a chunk of so many would come too late; a single one is never refused.

        Raises:
            AdmissionError: with the times it is judged by.
        """
        if streams <= 1:
            return
        expected, allowed = self.expected_s(streams), self.budget_s * (1 - self.margin)
        if expected is None:
            raise AdmissionError(f"{streams} streams are asked for, but no chunk time has been measured; calibrate "
                                 "the pool first, or let the first stream run for some chunks")
        if expected > allowed:
            raise AdmissionError(f"{streams} streams would take {expected:.2f} s a chunk, {allowed:.2f} s are allowed "
                                 f"({100 * self.margin:.0f} % of {self.budget_s:.2f} s kept free); wait for a stream "
                                 "to end, or use another device")
