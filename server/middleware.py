"""Pure ASGI middleware: a request id on every answer, and only hosts we know.

BaseHTTPMiddleware is not used: it hides client disconnects from streaming answers.
"""

from __future__ import annotations

import re
import secrets

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.settings import Settings

REQUEST_ID = re.compile(rb"^[A-Za-z0-9._-]{1,64}$")
LOOPBACK = {"127.0.0.1", "localhost", "[::1]", "testserver"}


class RequestId:
    """Takes `x-request-id` from the client when it is harmless, else makes one; echoes it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = given if REQUEST_ID.match(given) else secrets.token_hex(8).encode()
        scope["request_id"] = request_id.decode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id)]
            await send(message)

        return await self.app(scope, receive, send_with_id)


class LoopbackHost:
    """Refuses requests whose Host or Origin is not a loopback name: a web page elsewhere that
    rebinds its name to 127.0.0.1 cannot drive the open service (DNS rebinding)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = dict(scope["headers"])
            origin = headers.get(b"origin", b"").decode("latin-1")
            host = headers.get(b"host", b"").decode("latin-1")
            if not _is_loopback(host) or (origin and not _is_loopback(origin.partition("://")[2])):
                return await _refuse(scope, receive, send)
        return await self.app(scope, receive, send)


def _is_loopback(host: str) -> bool:
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name in LOOPBACK


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4403, "reason": "host not allowed"})
        return
    body = (
        b'{"title":"Forbidden","status":403,"code":"forbidden_host","detail":"open http://127.0.0.1 instead"}'
    )
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def install(app: FastAPI, settings: Settings) -> None:
    if settings.host in ("127.0.0.1", "localhost", "::1"):
        app.add_middleware(LoopbackHost)
    app.add_middleware(RequestId)
