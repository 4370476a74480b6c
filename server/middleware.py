"""Pure ASGI middleware: a request id on every answer, only hosts and origins we know, headers that protect.

BaseHTTPMiddleware is not used: it hides client disconnects from streaming answers.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import exposure
from server.auth import Authorize
from server.policy import Policy
from server.problems import problem
from server.settings import Settings

REQUEST_ID = re.compile(rb"^[A-Za-z0-9._-]{1,64}$")
#: what Starlette's TestClient calls itself
TEST_HOST = "testserver"
MAX_BODY_BYTES = 1024 * 1024
#: a worker's report holds the end of a log, escaped
MAX_REPORT_BYTES = 8 * MAX_BODY_BYTES
#: and all of it within this time
BODY_S = 60.0
COUNT_THEMSELVES = re.compile(r"/v1/|/tokenize|/detokenize|/files/|/internal/attempts/[^/]+/(log|events)$")
CSP = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
PROTECTION = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


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
                headers = [*message.get("headers", []), (b"x-request-id", request_id), *PROTECTION]
                message["headers"] = headers
            await send(message)

        return await self.app(scope, receive, send_with_id)


class BodyLimit:
    """413 for a body that is too large, before it is read where it says its size; 408 for one that takes too
    long. Routes that count by themselves (/v1 and its like, what workers ship, parts of files) take more and
    are not looked at."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or COUNT_THEMSELVES.match(scope["path"]):
            return await self.app(scope, receive, send)
        most = MAX_REPORT_BYTES if scope["path"].startswith("/internal/") else MAX_BODY_BYTES
        detail = f"the body is larger than {most} bytes"
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            return await problem(Request(scope), 413, "too_large", detail)(scope, receive, send)
        size, whole = 0, False
        deadline = asyncio.get_running_loop().time() + BODY_S

        async def counted() -> Message:
            nonlocal size, whole
            if whole:  # what comes now is a client that leaves
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the body was not whole after {BODY_S:g} s") from None
            whole = not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > most:
                raise HTTPException(413, detail)
            return message

        return await self.app(scope, counted, send)


class KnownHost:
    """Refuses a Host that is not ours and an Origin that is neither ours nor allowed, on WebSockets too.

    So a page elsewhere that rebinds its name to this address cannot drive an open service, and cannot use
    the session of somebody's browser. `hosts` None: any name, which is safe as there is always a key then.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, origins: frozenset[str]) -> None:
        self.app, self.hosts, self.origins = app, hosts, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        if self.hosts is not None and _name(host) not in self.hosts:
            known = ", ".join(sorted(self.hosts - {TEST_HOST}))
            detail = f"this service answers to {known}; NANOCHAT_ALLOWED_HOSTS adds a name"
            return await _refuse(scope, receive, send, "forbidden_host", detail)
        if origin and not self._is_ours(origin, host):
            detail = "pages of other sites may not call this service; NANOCHAT_ALLOWED_ORIGINS adds one"
            return await _refuse(scope, receive, send, "forbidden_origin", detail)
        return await self.app(scope, receive, send)

    def _is_ours(self, origin: str, host: str) -> bool:
        where = origin.partition("://")[2]
        if origin in self.origins or (where and where == host):
            return True
        # another port of this machine: the dashboard in development
        return _name(host) in exposure.LOOPBACK and _name(where) in exposure.LOOPBACK


def _name(host: str) -> str:
    """`host` without port and brackets."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.removeprefix("[").removesuffix("]")


async def _refuse(scope: Scope, receive: Receive, send: Send, code: str, detail: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 4403, "reason": code})
        return
    body = json.dumps({"title": "Forbidden", "status": 403, "code": code, "detail": detail}).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def install(app: FastAPI, settings: Settings) -> None:
    """The last one added sees a request first."""
    origins = exposure.names(settings.allowed_origins)
    hosts = exposure.known_hosts(settings)
    app.add_middleware(BodyLimit)
    app.add_middleware(Authorize, policy=Policy())
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["authorization", "content-type", "idempotency-key", "if-match", "upload-offset"],
            expose_headers=["etag", "location", "retry-after", "upload-offset", "x-request-id"],
        )
    app.add_middleware(KnownHost, hosts=hosts if hosts is None else hosts | {TEST_HOST}, origins=origins)
    app.add_middleware(RequestId)
