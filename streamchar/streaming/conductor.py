"""Conducts a live stream: before every chunk it obeys the orders that came, keeps the pace, and chooses the plan.

The :class:`streamchar.rollout.stream.Director` of streams that somebody listens to while they are made.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

from streamchar.rollout.memory import StreamMemory
from streamchar.rollout.plan import SamplePlan
from streamchar.streaming.degradation import Degradation
from streamchar.streaming.live import LiveText
from streamchar.streaming.playback import PlaybackClock

log = logging.getLogger(__name__)

KEPT = 64
SHORTEST_WAIT_S = 1e-3


class Conductor:
    """Text, time and quality of a stream.

    While ``text`` is open the stream goes on, quiet where nothing is left to say; then it ends as any other.

    Args:
        quality: chooses each chunk's plan.
        playback: the deadlines; whoever delivers chunks calls :meth:`delivered`.
        text: orders that come while it speaks; None: the text is what memory holds.
        lead_s: how far generation may run ahead of the listener while ``text`` is open; an order is heard that much
            later. None: as far as it can.
    """

    def __init__(self, quality: Degradation, playback: PlaybackClock, text: LiveText | None = None,
                 lead_s: float | None = None) -> None:
        self.quality, self.playback, self.text, self.lead_s = quality, playback, text, lead_s
        self._begun: OrderedDict[int, tuple[float, int]] = OrderedDict()  # chunk -> when it began, at which level
        self._next: int | None = None
        self._took: tuple[float, int] | None = None  # seconds of the latest chunk, and its level

    def next_plan(self, memory: StreamMemory) -> SamplePlan | None:
        """As :meth:`streamchar.rollout.stream.Director.next_plan`."""
        k = memory.chunk
        going_on = False
        if self.text is not None:
            going_on = self.text.open  # asked first: what came before it closed is still obeyed
            for order in self.text.obey(memory):
                log.info("chunk %d: %s %s", k, order.kind, " ".join(order.words) or "(nothing)")
        if not going_on and bool(memory.finished.all()):
            return None
        now, due = self.playback.now(), self.playback.due(k)
        took = self._took[0] if self._took and self._took[1] == self.quality.level else None
        plan = self.quality.choose(k, None if due is None else due - now, took)
        self._next = k + 1
        self._begun[k] = (now, self.quality.level)
        while len(self._begun) > KEPT:
            self._begun.popitem(last=False)
        return plan

    def delivered(self, k: int) -> float:
        """Chunk ``k`` can be seen and heard: the seconds that were to spare (negative: late)."""
        begun = self._begun.pop(k, None)
        if begun is not None and self.playback.started:  # the first chunk warms up: it tells nothing of later ones
            self._took = (self.playback.now() - begun[0], begun[1])
        return self.playback.delivered(k)

    def keep_pace(self) -> None:
        """Wait while generation is ahead of the listener by more than ``lead_s`` and orders may still come."""
        if self.lead_s is None or self._next is None or self.text is None:
            return
        while self.text.open and (ahead := self.playback.lead(self._next) - self.lead_s) > SHORTEST_WAIT_S:
            self.text.wait(ahead)
