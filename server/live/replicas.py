"""Wake-ups between servers on one PostgreSQL, by LISTEN and NOTIFY.

What the hub says here is said to the others, gathered for a moment so that a busy run is a few messages a
second. A message is lost when this process dies right after a commit, or while a connection is down: readers
look into the store every second in any case, so that costs a second and nothing else. SQLite has one server,
and this does nothing there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING

from server.live.hub import Hub

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)
CHANNEL = "nanochat"
#: topics of this long are one message
GATHER_S = 0.02
RETRY_S = 1.0
#: PostgreSQL takes less than 8,000 bytes
PAYLOAD_BYTES = 7000


class Replicas:
    """Passes wake-ups on, in both directions. One per process."""

    def __init__(self, sqlalchemy_url: str, hub: Hub) -> None:
        scheme, _, rest = sqlalchemy_url.partition("://")
        self._url = f"postgresql://{rest}" if scheme.startswith("postgresql") else None
        self._hub, self._me = hub, secrets.token_hex(8)
        self._topics: set[str] = set()
        self._some = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.listening = False
        """Whether others reach us right now."""

    async def start(self) -> None:
        if self._url is not None:
            self._hub.tell_others = self._add
            self._tasks = [
                asyncio.create_task(self._again_and_again("listen")),
                asyncio.create_task(self._again_and_again("notify")),
            ]

    async def stop(self) -> None:
        self._hub.tell_others = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _add(self, topic: str) -> None:
        self._topics.add(topic)
        self._some.set()

    async def _again_and_again(self, what: str) -> None:
        """Keep one connection, and make a new one when it is lost."""
        import psycopg  # not where there is no PostgreSQL

        while True:
            try:
                async with await self._connect(what) as connection:
                    await (self._listen if what == "listen" else self._notify)(connection)
            except (psycopg.Error, OSError) as error:
                said = str(error).strip().splitlines()
                log.warning("wake-ups of other servers (%s): %s; trying again", what, (said or ["lost"])[0])
            finally:
                if what == "listen":
                    self.listening = False
            await asyncio.sleep(RETRY_S)

    async def _connect(self, what: str) -> psycopg.AsyncConnection[object]:
        import psycopg

        assert self._url is not None
        return await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, application_name=f"nanochat-{what}", connect_timeout=10
        )

    async def _listen(self, connection: psycopg.AsyncConnection[object]) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        self.listening = True
        async for message in connection.notifies():
            sender, _, topics = message.payload.partition(" ")
            if sender != self._me:
                for topic in topics.split():
                    self._hub.notify(topic, here_only=True)

    async def _notify(self, connection: psycopg.AsyncConnection[object]) -> None:
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_S)
            self._some.clear()
            topics, self._topics = self._topics, set()
            for payload in self._payloads(topics):
                await connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))

    def _payloads(self, topics: set[str]) -> Iterator[str]:
        payload = self._me
        for topic in topics:
            if len(payload) + len(topic) > PAYLOAD_BYTES:
                yield payload
                payload = self._me
            payload += f" {topic}"
        yield payload
