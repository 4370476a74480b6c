"""The keys as this process knows them: read again every two seconds, so that a request costs no query.

So a key that another process revokes is good for two more seconds here; one that this process makes or
revokes counts at once. The time of last use is written once a minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import SQLAlchemyError

from nanochat_client.types.keys import USER, Scope
from server import exposure
from server.background import end
from server.db import Database
from server.keys import repository, secret
from server.models import Key, now
from server.settings import Settings

log = logging.getLogger("server.keys")
FRESH_S = 2.0
FLUSH_S = 60.0


@dataclass(frozen=True)
class Caller:
    """Who asks, and what for. `session`: the cookie's text when a browser asks."""

    key_id: str
    name: str
    scopes: frozenset[Scope]
    digest: str
    session: str = ""

    @property
    def csrf(self) -> str:
        return secret.csrf(self.digest, self.session)


class KeyRing:
    """Whether keys are asked for, and whose a key is. One per process."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self.settings, self.db = settings, db
        self._keys: dict[str, Key] = {}
        self._read_at = -FRESH_S
        self._reading = asyncio.Lock()
        self._used: dict[str, datetime] = {}

    async def is_on(self) -> bool:
        """Whether callers must show a key."""
        if self.settings.auth == "off":
            return False
        if self.settings.auth == "on" or exposure.is_exposed(self.settings):
            return True
        return bool(await self._known())

    async def of_key(self, text: str) -> Caller | None:
        """Whose key this is; None when nobody's, or its time is over."""
        parsed = secret.parse(text)
        key = await self._find(parsed[0]) if parsed else None
        if parsed is None or key is None or not secret.matches(parsed[1], key.digest):
            return None
        return self._caller(key)

    async def of_session(self, text: str) -> Caller | None:
        """Whose session this is; None when nobody's, or its time is over."""
        parsed = secret.read_session(text)
        key = (await self._known()).get(parsed[0]) if parsed else None
        if parsed is None or key is None or not secret.is_session_of(key.digest, *parsed):
            return None
        return self._caller(key, text)

    async def holds(self, caller: Caller) -> bool:
        """Whether the key of a caller who was let in is still good. Costs no query of its own."""
        key = (await self._known()).get(caller.key_id)
        return (
            key is not None
            and key.digest == caller.digest
            and (key.expires_at is None or key.expires_at > now())
        )

    async def has_workers(self) -> bool:
        """Whether there are keys with the scope `worker`, beside the worker token."""
        return any(Scope.WORKER in key.scopes for key in (await self._known()).values())

    def forget(self) -> None:
        """Read the table again before the next answer."""
        self._read_at = -FRESH_S

    def _caller(self, key: Key, session: str = "") -> Caller | None:
        at = now()
        if key.expires_at is not None and key.expires_at <= at:
            return None
        self._used[key.id] = at
        return Caller(key.id, key.name, widened(key.scopes), key.digest, session)

    async def _find(self, key_id: str) -> Key | None:
        """The key of that id, also when another process has made it just now."""
        return (await self._known()).get(key_id) or (await self._known(fresh_s=0.0)).get(key_id)

    async def _known(self, fresh_s: float = FRESH_S) -> dict[str, Key]:
        oldest = time.monotonic() - fresh_s
        if self._read_at > oldest:
            return self._keys
        async with self._reading:
            if self._read_at <= oldest:  # else somebody has read it while this one waited
                started = time.monotonic()
                async with self.db.read() as session:
                    self._keys = {key.id: key for key in await repository.all_keys(session)}
                self._read_at = started
        return self._keys

    @asynccontextmanager
    async def noting_use(self) -> AsyncIterator[None]:
        """Write down when keys were used as long as the block runs, and at its end."""
        task = asyncio.create_task(self._flush_again_and_again(), name="keys-last-use")
        try:
            yield
        finally:
            await end(task)
            await self._flush()

    async def _flush_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await self._flush()

    async def _flush(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with self.db.write() as session:
                await repository.note_use(session, used)
        except (SQLAlchemyError, OSError) as error:
            log.warning(
                "the time of last use of %d key(s) is not stored: %s", len(used), type(error).__name__
            )


def widened(scopes: list[str]) -> frozenset[Scope]:
    """What these scopes allow: `admin` includes all of a user's."""
    given = {Scope(name) for name in scopes}
    return frozenset(given | set(USER) if Scope.ADMIN in given else given)
