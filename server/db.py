"""Database access: one `Database` per process, sessions that commit at the edge and nowhere else.

SQLite has one writer: writes share a single connection that begins IMMEDIATE, so they queue in this
process instead of failing with "database is locked"; reads have connections of their own (WAL).
PostgreSQL uses one pool for both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from server import sqlite


class Database:
    """Engines and sessions for one URL (`Settings.sqlalchemy_url`)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            self._reader = _sqlite_engine(url, "BEGIN", pool_size=4)
            self._writer = _sqlite_engine(url, "BEGIN IMMEDIATE", pool_size=1)
        else:
            self._reader = self._writer = create_async_engine(
                url, pool_size=8, max_overflow=8, pool_pre_ping=True
            )
        self._read_session = async_sessionmaker(self._reader, expire_on_commit=False)
        self._write_session = async_sessionmaker(self._writer, expire_on_commit=False)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session that sees one snapshot and is rolled back at the end."""
        async with self._read_session() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed when the block ends well, else rolled back.

        Callables given to `after_commit` run once the commit is durable.
        """
        async with self._write_session() as session:
            yield session
            await session.commit()
        for call in session.info.pop("after_commit", []):
            call()

    def engines(self) -> list[AsyncEngine]:
        """The one or two there are."""
        return list(dict.fromkeys((self._reader, self._writer)))

    async def close(self) -> None:
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()


def after_commit(session: AsyncSession, call: Callable[[], Any]) -> None:
    """Run `call` after this transaction is durable; dropped when it is rolled back."""
    session.info.setdefault("after_commit", []).append(call)


def _sqlite_engine(url: str, begin: str, pool_size: int) -> AsyncEngine:
    path = make_url(url).database or ":memory:"
    engine = create_async_engine(
        url, pool_size=pool_size, max_overflow=0, async_creator=lambda: sqlite.connect(path, timeout_s=30)
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
