"""Reads and guarded writes of the table `files`. Flushes, never commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Select, and_, func, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import FileState
from server.ids import is_id
from server.models import File, now
from server.problems import NotFound

#: any fixed number: who adds a file holds this PostgreSQL advisory lock until its transaction ends
_LOCK = 7_306_002
UPLOADING, CHECKING = FileState.UPLOADING, FileState.CHECKING
READY, REJECTED = FileState.READY, FileState.REJECTED


@dataclass(frozen=True)
class Held:
    """What the uploads take, announced bytes of unfinished ones included."""

    count: int
    size: int
    missing: int
    """Bytes of it that have not come yet."""


async def get(session: AsyncSession, file_id: str, *, lock: bool = False) -> File:
    """Raises NotFound."""
    found = None
    if is_id(file_id):
        found = await session.get(File, file_id, with_for_update=lock or None, populate_existing=lock)
    if found is None:
        raise NotFound(f"there is no file {file_id!r}: GET /files lists them")
    return found


async def of_name(session: AsyncSession, kind: str, name: str, *, share: bool = False) -> File | None:
    """The file of that name; `share`: it stays until the transaction ends."""
    query = select(File).where(File.kind == kind, File.name == name)
    return (await session.scalars(query.with_for_update(read=True) if share else query)).one_or_none()


async def ready(session: AsyncSession) -> Sequence[File]:
    return (await session.scalars(select(File).where(File.state == READY))).all()


async def one_at_a_time(session: AsyncSession) -> None:
    """Others who add a file wait until this transaction ends, so that sums and names hold. SQLite has one
    writer anyway."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


async def held(session: AsyncSession) -> Held:
    whole = func.coalesce(func.sum(File.size), 0)
    come = func.coalesce(func.sum(File.received), 0)
    query = select(func.count(), whole, come).where(File.state != REJECTED)
    count, size, received = (await session.execute(query)).one()
    return Held(int(count), int(size), int(size) - int(received))


async def advance(session: AsyncSession, file: File, before: int, after: int) -> bool:
    """Of `before` bytes that were on the disk there are `after` now; with the last one it is `checking`.

    One guarded UPDATE: False when the upload is gone or somebody else has written since.
    """
    here = update(File).where(File.id == file.id, File.state == UPLOADING, File.received == before)
    state = CHECKING if after == file.size else UPLOADING
    return await _did(session, here.values(received=after, state=state, touched_at=now()))


async def settle(session: AsyncSession, file_id: str, *, items: int | None, message: str | None) -> bool:
    """How its check ended: rejected with a message, else ready. False when it is not being checked."""
    moment = now()
    values: dict[str, Any] = {"state": REJECTED, "message": message, "touched_at": moment}
    if message is None:
        values = {"state": READY, "items": items, "ready_at": moment, "touched_at": moment}
    checked = update(File).where(File.id == file_id, File.state == CHECKING)
    return await _did(session, checked.values(**values))


async def ids_in(session: AsyncSession, state: FileState) -> Sequence[str]:
    """The oldest first."""
    return (await session.scalars(select(File.id).where(File.state == state).order_by(File.touched_at))).all()


async def all_ids(session: AsyncSession) -> set[str]:
    return set(await session.scalars(select(File.id)))


async def untouched(session: AsyncSession, before: datetime, *, lock: bool = False) -> Sequence[File]:
    """Unfinished and rejected ones that nothing happened to since `before`."""
    query = select(File).where(File.state.in_([UPLOADING, REJECTED]), File.touched_at < before)
    return (await session.scalars(query.with_for_update(skip_locked=True) if lock else query)).all()


def newest_first(kind: str | None, before: tuple[datetime, str] | None) -> Select[File]:
    """Query for files, newest first, going on after the file `before` (created_at, id)."""
    query = select(File).order_by(File.created_at.desc(), File.id.desc())
    if kind is not None:
        query = query.where(File.kind == kind)
    if before is not None:
        moment, last_id = before
        older = File.created_at < moment
        query = query.where(or_(older, and_(File.created_at == moment, File.id < last_id)))
    return query


async def _did(session: AsyncSession, statement: Any) -> bool:
    done = await session.execute(statement.execution_options(synchronize_session=False))
    return cast(CursorResult[Any], done).rowcount == 1
