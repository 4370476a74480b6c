"""Who may call: looks at every request before any route does (pure ASGI, also for WebSockets).

A key comes as `Authorization: Bearer nck_…`, in a WebSocket's first frame `{"op":"hello","token":…}`, or as
the session that POST /login gave to a browser; then whatever changes something must carry `x-csrf-token`.
Workers show the worker token, or a key with the scope `worker`, also where the service is open.
Not covered: slowing down who guesses. A secret has 256 bits.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from http.cookies import CookieError, SimpleCookie
from typing import Any, cast

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat_client.types.keys import Scope as KeyScope
from server.keys.ring import Caller, KeyRing
from server.policy import ANYBODY, WORKER, Policy
from server.problems import problem

COOKIE = "nanochat_session"
HELLO_S = 10.0
SAFE = ("GET", "HEAD", "OPTIONS")
MAKE_ONE = "`nanochat keys create --local` on the server's machine makes one"


class Denied(Exception):
    """The answer for a caller who may not."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class NoKey(Denied):
    def __init__(self) -> None:
        super().__init__(401, "unauthorized", f"send `Authorization: Bearer nck_…`; {MAKE_ONE}")


class Authorize:
    """Refuses what `server.policy` does not allow. The caller is at `scope["state"]["caller"]`."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self.app, self.policy = app, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        method = scope["method"] if scope["type"] == "http" else "WS"
        needed = self.policy.needed(method, scope["path"])
        if needed is not None and all(scopes == ANYBODY for scopes in needed):
            return await self.app(scope, receive, send)
        ring = cast(KeyRing, scope["app"].state.keys)
        if not (needed and WORKER in needed) and not await ring.is_on():
            return await self.app(scope, receive, send)
        try:
            caller = await _caller(scope, ring)
        except NoKey as denied:
            if scope["type"] == "http" or _bearer(scope):
                return await _refuse(scope, receive, send, denied)
            return await self._greet(scope, receive, send, needed)
        except Denied as denied:
            return await _refuse(scope, receive, send, denied)
        if (refusal := self._denied(scope, needed, caller)) is not None:
            return await _refuse(scope, receive, send, refusal)
        scope.setdefault("state", {})["caller"] = caller
        return await _as_long_as_it_holds(self.app, ring, caller, scope, receive, send)

    def _denied(
        self, scope: Scope, needed: list[frozenset[KeyScope]] | None, caller: Caller
    ) -> Denied | None:
        if needed is None:
            if self.policy.knows(scope["path"]):
                return None  # another method: the router answers 405
            return Denied(404, "not_found", "there is nothing here: /docs lists what there is")
        for scopes in needed:
            if not scopes & caller.scopes:
                wanted = " or ".join(sorted(scopes))
                return Denied(
                    403, "forbidden", f"this needs a key with the scope {wanted}; `{caller.name}` has it not"
                )
        return None

    async def _greet(
        self, scope: Scope, receive: Receive, send: Send, needed: list[frozenset[KeyScope]] | None
    ) -> None:
        """Take the key out of a WebSocket's first frame; browsers cannot send headers with one."""
        await receive()  # websocket.connect
        await send({"type": "websocket.accept"})
        ring = cast(KeyRing, scope["app"].state.keys)
        caller = await _hello(receive, ring)
        denied = NoKey() if caller is None else self._denied(scope, needed, caller)
        if caller is None or denied:
            status, code = (denied or NoKey()).status, (denied or NoKey()).code
            await send({"type": "websocket.close", "code": 4000 + status, "reason": code})
            return
        scope.setdefault("state", {})["caller"] = caller
        connected = False

        async def receive_on() -> Message:
            nonlocal connected
            if connected:
                return await receive()
            connected = True
            return {"type": "websocket.connect"}

        async def send_on(message: Message) -> None:
            if message["type"] != "websocket.accept":  # that was done
                await send(message)

        await _as_long_as_it_holds(self.app, ring, caller, scope, receive_on, send_on)


class Revoked(OSError):
    """Raised where an application sends on: the caller's key is no longer good."""


async def _as_long_as_it_holds(
    app: ASGIApp, ring: KeyRing, caller: Caller, scope: Scope, receive: Receive, send: Send
) -> None:
    """Run `app`; when the caller's key is revoked or its time is over, nothing more is sent.

    A WebSocket is closed with 4401. A streamed answer ends, one whose length was said breaks off.
    """
    if not caller.key_id:  # the worker token: as good as the process
        await app(scope, receive, send)
        return
    revoked, has_length = False, False

    async def send_on(message: Message) -> None:
        nonlocal revoked, has_length
        if message["type"] == "http.response.start":
            has_length = any(name == b"content-length" for name, _ in message["headers"])
        # one piece is no stream: who revokes the own key is told that it is done
        streams = message["type"] == "websocket.send" or message.get("more_body", False)
        if streams and not await ring.holds(caller):
            revoked = True
            raise Revoked("the key of this stream was revoked")
        await send(message)

    try:
        await app(scope, receive, send_on)
    except Exception:
        if not revoked:
            raise
    if revoked and scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401, "reason": "unauthorized"})
    elif revoked and not has_length:
        await send({"type": "http.response.body", "body": b""})


async def _hello(receive: Receive, ring: KeyRing) -> Caller | None:
    try:
        message = await asyncio.wait_for(receive(), HELLO_S)
        frame: Any = json.loads(message.get("text") or "null")
    except (TimeoutError, ValueError, RecursionError):
        return None
    match frame:
        case {"op": "hello", "token": str(token)}:
            return await ring.of_key(token)
    return None


async def _caller(scope: Scope, ring: KeyRing) -> Caller:
    """Raises NoKey, or Denied for a browser's request that another site may have made."""
    if bearer := _bearer(scope):
        expected = ring.settings.worker_token.get_secret_value()
        if expected and hmac.compare_digest(bearer.encode(), expected.encode()):
            return Caller("", "the worker token", WORKER, "")
        if (caller := await ring.of_key(bearer)) is None:
            raise NoKey
        return caller
    if (caller := await ring.of_session(session_of(scope))) is None:
        raise NoKey
    if scope["type"] == "http" and scope["method"] not in SAFE:
        given = _header(scope, b"x-csrf-token")
        if not hmac.compare_digest(given.encode(), caller.csrf.encode()):
            raise Denied(
                403, "csrf", "a page's request that changes something carries `x-csrf-token`: /session has it"
            )
    return caller


def session_of(scope: Scope) -> str:
    """The session cookie's text; empty when there is none."""
    try:
        cookies = SimpleCookie(_header(scope, b"cookie"))
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""


def _bearer(scope: Scope) -> str:
    kind, _, token = _header(scope, b"authorization").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _header(scope: Scope, name: bytes) -> str:
    return str(dict(scope["headers"]).get(name, b"").decode("latin-1"))


async def _refuse(scope: Scope, receive: Receive, send: Send, denied: Denied) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})  # only an open socket can tell a browser why it closes
        await send({"type": "websocket.close", "code": 4000 + denied.status, "reason": denied.code})
        return
    answer = problem(Request(scope), denied.status, denied.code, denied.detail)
    if denied.status == 401:
        answer.headers["www-authenticate"] = "Bearer"
    await answer(scope, receive, send)
