"""Text that reaches a character while it speaks: appended, replaced, or cutting it short.

Any thread may call; the chunk loop obeys at the next chunk's border, in the order of the calls. What has been obeyed is
in the stream's memory, and with it in its ``state_dict``; what has not is still here.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from streamchar.errors import InputError
from streamchar.rollout.memory import StreamMemory
from streamchar.streaming.prompt import live_words


@dataclass(frozen=True)
class Order:
    """One change of what stream number ``stream`` has to say. ``kind``: ``append``, ``replace`` or ``interrupt``."""

    kind: str
    words: tuple[str, ...]
    stream: int = 0

    def obey(self, memory: StreamMemory) -> None:
        """Change the text in ``memory``."""
        if self.kind == "append":
            memory.append_text(self.stream, list(self.words))
        else:
            memory.replace_text(self.stream, list(self.words), cut=self.kind == "interrupt")


class LiveText:
    """The orders that wait for the next chunk.

    Args:
        units: the character's text units, to name characters that it cannot spell.
        streams: how many streams there are to speak to.
    """

    def __init__(self, units: object | None = None, streams: int = 1) -> None:
        self.units, self.streams = units, streams
        self._waiting: deque[Order] = deque()
        self._changed = threading.Condition()
        self._open = True

    def append(self, text: str, stream: int = 0) -> None:
        """Say ``text`` after what is still to say."""
        self._give("append", text, stream)

    def replace(self, text: str, stream: int = 0) -> None:
        """Finish the word that is being said, then say ``text`` in place of the rest."""
        self._give("replace", text, stream)

    def interrupt(self, text: str = "", stream: int = 0) -> None:
        """From the next chunk on say ``text``, or nothing; the word that is being said is cut."""
        self._give("interrupt", text, stream)

    def close(self) -> None:
        """Nothing more will come: the stream ends when all is said. Safe to call twice."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    @property
    def open(self) -> bool:
        """Whether more may come."""
        return self._open

    def obey(self, memory: StreamMemory) -> list[Order]:
        """Carry out all orders that have come; returns them."""
        with self._changed:
            orders = list(self._waiting)
            self._waiting.clear()
        for order in orders:
            order.obey(memory)
        return orders

    def wait(self, seconds: float) -> None:
        """Let time pass while more may come: up to ``seconds``, closing ends it early."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open, seconds)

    def _give(self, kind: str, text: str, stream: int) -> None:
        if not 0 <= stream < self.streams:
            raise InputError(f"stream {stream} does not exist: there are {self.streams}, numbered from 0")
        words = tuple(live_words(text, self.units))
        with self._changed:
            if not self._open:
                raise InputError(f"cannot {kind} text: this stream's text was closed; start another stream")
            if words or kind != "append":
                self._waiting.append(Order(kind, words, stream))
