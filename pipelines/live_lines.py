"""Lines of text steer a live stream: what is typed is said."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from streamchar.streaming.live import LiveText

log = logging.getLogger(__name__)


def follow_lines(text: LiveText, lines: Iterable[str]) -> threading.Thread:
    """Obey ``lines`` in a thread of its own, as they come; their end closes ``text``."""

    def follow() -> None:
        try:
            for line in lines:
                obey_line(text, line.strip())
        except Exception:
            log.exception("reading what to say failed; the stream ends when all that came before has been said")
        finally:
            text.close()

    # A thread that waits for a line cannot be woken: it must not keep the process alive.
    thread = threading.Thread(target=follow, name="live-lines", daemon=True)
    thread.start()
    return thread


def obey_line(text: LiveText, line: str) -> None:
    """``!words`` interrupt, ``=words`` replace what is still to say, other words are appended."""
    if line.startswith("!"):
        text.interrupt(line[1:])
    elif line.startswith("="):
        text.replace(line[1:])
    elif line:
        text.append(line)
