"""A network between a worker and the server that can be cut: packets vanish, nobody is told."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress

CHUNK_BYTES = 64 * 1024


class Proxy:
    """Forwards 127.0.0.1:<port of ours> to a port. While cut, nothing moves and nothing is refused."""

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        """New connections work; those that were open are found dead."""
        for pair in self._pairs:
            _close(*pair)
        self._pairs.clear()
        self._open.set()

    def close(self) -> None:
        self._closed = True
        self._open.set()
        _close(self._listener)
        for pair in self._pairs:
            _close(*pair)

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._open.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=10)
            except OSError:
                _close(near)
                continue
            self._pairs.append((near, far))
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with selectors.DefaultSelector() as selector, suppress(OSError, ValueError, KeyError):
            for end in (near, far):
                selector.register(end, selectors.EVENT_READ)
            while not self._closed:
                for key, _ in selector.select(timeout=1.0):
                    self._open.wait()
                    source: socket.socket = key.fileobj  # type: ignore[assignment]
                    data = source.recv(CHUNK_BYTES)
                    if not data:
                        raise OSError("closed")
                    other[source].sendall(data)
        _close(near, far)


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
