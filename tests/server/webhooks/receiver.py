"""Something that webhooks are sent to: a real HTTP server that writes down what it gets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    port: int = 0
    answers: list[int] = field(default_factory=list)
    """Statuses of the next answers; then 204."""
    hang: threading.Event = field(default_factory=threading.Event)
    """Answers wait as long as it is set and `go` is not."""
    go: threading.Event = field(default_factory=threading.Event)
    got: list[tuple[dict[str, str], bytes, str]] = field(default_factory=list)
    """Headers, body and path of every request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body, _ in self.got]

    def types(self) -> list[str]:
        return [body["type"] for body in self.bodies()]


@contextmanager
def receiver() -> Iterator[Receiver]:
    noted = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {key.lower(): value for key, value in self.headers.items()}
            noted.got.append((headers, body, self.path))
            if noted.hang.is_set():
                noted.go.wait(20)
            status = noted.answers.pop(0) if noted.answers else 204
            self.send_response(status)
            if status in (301, 302, 307):
                self.send_header("location", f"http://127.0.0.1:{noted.port}/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    noted.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield noted
    finally:
        noted.go.set()
        server.shutdown()
        server.server_close()
        thread.join()
