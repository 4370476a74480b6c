"""How long a connection may take to say what it wants, and how much at a time: slow-loris.

A head of a request that is not whole within HEAD_S, and a body that goes on for so long after it was
answered (401, 413), end the connection. A body that somebody reads is bounded elsewhere: BodyLimit in
server/middleware.py, server/files/receive.py. Not covered: more connections at a time than the process may
have files open; a trickle to /v1 and of what workers ship, whose callers have a key.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 30.0


class Impatient(HttpToolsProtocol):
    """uvicorn's protocol, which would wait for ever."""

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect()

    def on_headers_complete(self) -> None:
        self._came()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._came()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        unread = self.cycle.response_complete and self.cycle.more_body
        super().on_response_complete()
        if unread and not self.transport.is_closing():
            self._expect()  # the rest of a body that nobody reads any more

    def _expect(self) -> None:
        self._came()
        self._patience = self.loop.call_later(HEAD_S, self.transport.close)

    def _came(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


#: what uvicorn is told. Clients of streams say a sentence at a time, the first one before they are known.
OPTIONS: dict[str, Any] = {"http": Impatient, "ws_max_size": 256 * 1024}
