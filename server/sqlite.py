"""SQLite for asyncio without a thread hop a call: statements run where they are awaited.

A statement on pages that are in memory takes 10 to 100 microseconds; handing it to a thread and back takes
longer than that, several times a statement, and a request has a dozen. So only what waits for the disk or for
another process goes to a thread: opening, pragmas, BEGIN IMMEDIATE and COMMIT. A cancelled task waits for
that: a connection that one thread closes under another takes the process along.
Not covered: reads from a cold disk hold up the event loop as long as they take.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from server.background import in_thread

WAITS = ("BEGIN IMMEDIATE", "PRAGMA")


class Cursor:
    """The part of an asynchronous DB-API cursor that SQLAlchemy asks for."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor

    async def __aenter__(self) -> Cursor:
        return self

    @property
    def description(self) -> Any:
        return self._cursor.description

    @property
    def lastrowid(self) -> int | None:
        return self._cursor.lastrowid

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    async def execute(self, statement: str, parameters: Any = ()) -> Cursor:
        if statement.startswith(WAITS):
            await in_thread(self._cursor.execute, statement, parameters)
        else:
            self._cursor.execute(statement, parameters)
        return self

    async def executemany(self, statement: str, parameters: Iterable[Any]) -> Cursor:
        self._cursor.executemany(statement, parameters)
        return self

    async def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        return self._cursor.fetchmany(self._cursor.arraysize if size is None else size)

    async def fetchone(self) -> Any:
        return self._cursor.fetchone()

    async def close(self) -> None:
        self._cursor.close()


class Connection:
    """The part of an asynchronous DB-API connection that SQLAlchemy asks for."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def cursor(self) -> Cursor:
        return Cursor(self._connection.cursor())

    async def commit(self) -> None:
        if self._connection.in_transaction:
            await in_thread(self._connection.commit)

    async def rollback(self) -> None:
        self._connection.rollback()

    async def close(self) -> None:
        await in_thread(self._connection.close)

    async def create_function(self, *args: Any, **kwargs: Any) -> None:
        self._connection.create_function(*args, **kwargs)


async def connect(path: str, timeout_s: float) -> Connection:
    """Open a database; whoever wants a transaction says BEGIN. Waits `timeout_s` for other processes."""

    def opened() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)

    return Connection(await in_thread(opened))
