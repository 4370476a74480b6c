"""Leaving behind a proxy without breaking a request: `NANOCHAT_DRAIN_S`.

A proxy keeps connections to the server and sends a request on one that looks idle. A server that closes such
a connection may close it just then, and a proxy does not repeat a POST that it has sent. So a server that
drains takes no new connections, which turns the proxy to other servers; closes WebSockets with 1012, whose
readers come back elsewhere; and says `connection: close` with every answer, until the proxy has closed all
connections or `drain_s` is over. The proxy must close idle ones sooner than that (nginx: keepalive_timeout).

Not covered: server-sent events and answers that take longer than `drain_s` and 5 s more, they are cut.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLL_S = 0.05


def make(app: ASGIApp, drain_s: float, **options: Any) -> uvicorn.Server:
    """A server of `app`. `options`: uvicorn.Config's."""
    if not drain_s:
        return uvicorn.Server(uvicorn.Config(app, **options))
    goodbye = Goodbye(app)
    return DrainingServer(uvicorn.Config(goodbye, **options), goodbye, drain_s)


class Goodbye:
    """Tells clients to use another connection for their next request, once `leaving`.

    A reader that comes on a connection which the proxy has kept is told to come again (1012).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app, self.leaving = app, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.leaving and scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            return await send({"type": "websocket.close", "code": 1012})

        async def last(message: Message) -> None:
            if self.leaving and message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        return await self.app(scope, receive, last if scope["type"] == "http" else send)


class DrainingServer(uvicorn.Server):
    """Waits for its connections before it shuts down as usual; a second Ctrl-C ends the wait."""

    def __init__(self, config: uvicorn.Config, goodbye: Goodbye, drain_s: float) -> None:
        super().__init__(config)
        self._goodbye, self._drain_s = goodbye, drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._goodbye.leaving = True
        await self._close_the_door(sockets or [])
        for connection in list(self.server_state.connections):
            if not isinstance(connection, self.config.http_protocol_class):
                connection.shutdown()
        deadline = time.monotonic() + self._drain_s
        # uvicorn tells nobody when the last one has gone
        while not self._alone() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        await super().shutdown(sockets)

    def _alone(self) -> bool:
        return self.force_exit or not self.server_state.connections

    async def _close_the_door(self, sockets: list[socket.socket]) -> None:
        """Listen no more. Who has connected and was not accepted yet would be reset: let them in first."""
        doors = [sock.dup() for sock in sockets]
        for server in self.servers:
            server.close()
        for sock in sockets:
            sock.close()
        await asyncio.sleep(POLL_S)  # uvloop closes its descriptors in a later turn; ours still listens
        for guest in [guest for door in doors for guest in _last_guests(door)]:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, guest)

    def _protocol(self) -> asyncio.Protocol:
        """For one connection, as uvicorn makes it."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


def _last_guests(door: socket.socket) -> list[socket.socket]:
    """All who wait at a listening socket; it is closed when there is nobody left."""
    guests = []
    door.setblocking(False)
    with door, suppress(BlockingIOError):
        while True:
            guests.append(door.accept()[0])
            guests[-1].setblocking(False)
    return guests
