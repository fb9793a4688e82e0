"""A small HTTP server of a folder that can fail on purpose: what remote storage does on a bad day."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Loopback:
    """``failures``: how often each path still answers 503 (-1: always); ``cut``: how often it breaks off in the middle;
    ``asked``: requests by path."""

    folder: Path
    failures: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    asked: Counter = field(default_factory=Counter)
    port: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def takes(self, what: dict[str, int], path: str) -> bool:
        left = what.get(path, what.get("*", 0))
        if left > 0:
            what[path] = left - 1
        return left != 0


@contextmanager
def serve(folder: Path) -> Iterator[Loopback]:
    """Serve ``folder`` on a free port of the loopback interface."""
    state = Loopback(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            state.asked[path] += 1
            file = folder / path
            if state.takes(state.failures, path):
                self.send_error(503)
            elif not file.is_file():
                self.send_error(404)
            else:
                body = file.read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:len(body) // 2] if state.takes(state.cut, path) else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
