"""Keys and sessions over HTTP."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import cast

from fastapi import APIRouter, Request, Response

from nanochat_client.types import Page
from nanochat_client.types.keys import Key, KeyCreate, KeyCreated, Login, Session
from server import auth, models
from server.deps import Read, ServicesDep
from server.keys import repository, secret
from server.keys.ring import Caller, KeyRing
from server.problems import Unauthorized

router = APIRouter(tags=["keys"])


@router.post("/keys", status_code=201)
async def create_key(body: KeyCreate, request: Request, services: ServicesDep) -> KeyCreated:
    """Make a key. The answer shows it, and nothing shows it again."""
    async with services.db.write() as session:
        row, key = await repository.add(session, body)
    _ring(request).forget()
    return KeyCreated(**_view(row).model_dump(), key=key)


@router.get("/keys")
async def list_keys(session: Read) -> Page[Key]:
    """Every key with its scopes and its last use, never its secret."""
    return Page(items=[_view(row) for row in await repository.all_keys(session)])


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(key_id: str, request: Request, services: ServicesDep) -> None:
    """The key and all its sessions end: here at once, in other replicas within two seconds."""
    async with services.db.write() as session:
        await repository.remove(session, key_id)
    _ring(request).forget()


@router.post("/login")
async def login(body: Login, request: Request, response: Response) -> Session:
    """A session for the browser, as a cookie that no script can read."""
    caller = await _ring(request).of_key(body.key)
    if caller is None:
        raise Unauthorized(f"this is no key of this service, or its time is over; {auth.MAKE_ONE}")
    until = int(time.time()) + secret.SESSION_S
    text = secret.session(caller.key_id, caller.digest, until)
    response.set_cookie(
        auth.COOKIE,
        text,
        max_age=secret.SESSION_S,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return _session(Caller(caller.key_id, caller.name, caller.scopes, caller.digest, text))


@router.get("/session")
async def session(request: Request) -> Session | None:
    """Who is signed in in this browser; null where nobody needs to be."""
    caller = cast(Caller | None, getattr(request.state, "caller", None))
    return _session(caller) if caller is not None and caller.session else None


@router.post("/logout", status_code=204)
async def logout(response: Response) -> None:
    """The browser forgets its session."""
    response.delete_cookie(auth.COOKIE, httponly=True, samesite="strict")


def _session(caller: Caller) -> Session:
    until = int(caller.session.split(".")[1])
    return Session(
        name=caller.name,
        scopes=sorted(caller.scopes),
        csrf=caller.csrf,
        expires_at=datetime.fromtimestamp(until, UTC),
    )


def _view(row: models.Key) -> Key:
    return Key.model_validate(row, from_attributes=True)


def _ring(request: Request) -> KeyRing:
    return cast(KeyRing, request.app.state.keys)
