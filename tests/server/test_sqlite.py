"""SQLite on the event loop: one writer, readers that see only what is committed, nothing left locked."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from server.db import Database


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
    async with made.write() as session:
        await session.execute(text("CREATE TABLE t (n INTEGER)"))
    yield made
    await made.close()


async def count(db: Database) -> int:
    async with db.read() as session:
        return int((await session.execute(text("SELECT count(*) FROM t"))).scalar_one())


async def add(db: Database, n: int) -> None:
    async with db.write() as session:
        await session.execute(text("INSERT INTO t VALUES (:n)"), {"n": n})


async def test_writers_queue_and_readers_see_only_what_is_committed(db: Database) -> None:
    async with db.write() as session:
        await session.execute(text("INSERT INTO t VALUES (1)"))
        others = [asyncio.create_task(add(db, n)) for n in range(20)]
        assert await count(db) == 0
    await asyncio.gather(*others)
    assert await count(db) == 21


async def test_what_fails_or_is_cancelled_leaves_nothing_and_holds_nothing(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.write() as session:
            await session.execute(text("INSERT INTO t VALUES (1)"))
            raise ZeroDivisionError
    inside = asyncio.Event()

    async def write_for_ever() -> None:
        async with db.write() as session:
            await session.execute(text("INSERT INTO t VALUES (1)"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_for_ever())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await add(db, 2)
    assert await count(db) == 1


async def test_the_loop_goes_on_while_another_process_holds_the_lock(db: Database, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(add(db, 1))
    for _ in range(5):
        assert await count(db) == 0  # the loop is not blocked, readers neither
    assert not waiting.done()
    other.execute("ROLLBACK")
    other.close()
    await asyncio.wait_for(waiting, 30)
    assert await count(db) == 1
