"""Keys in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types.keys import KeyCreate
from server.keys import secret
from server.models import Key, now
from server.problems import NotFound


async def all_keys(session: AsyncSession) -> Sequence[Key]:
    """The oldest first."""
    return (await session.scalars(select(Key).order_by(Key.created_at, Key.id))).all()


async def add(session: AsyncSession, body: KeyCreate) -> tuple[Key, str]:
    """A new row and the key itself, which nothing can show a second time."""
    row, key = new(body)
    session.add(row)
    await session.flush()
    return row, key


def new(body: KeyCreate) -> tuple[Key, str]:
    """The row for a fresh key, not stored yet, and the key."""
    key_id, key, digest = secret.make()
    return row_of(key_id, digest, body), key


def row_of(key_id: str, digest: str, body: KeyCreate) -> Key:
    made = now()
    expires = made + timedelta(seconds=body.expires_in_s) if body.expires_in_s else None
    return Key(
        id=key_id,
        name=body.name,
        digest=digest,
        scopes=sorted({str(scope) for scope in body.scopes}),
        created_at=made,
        expires_at=expires,
    )


async def remove(session: AsyncSession, key_id: str) -> None:
    """Raises NotFound."""
    found = await session.execute(delete(Key).where(Key.id == key_id).returning(Key.id))
    if found.scalar_one_or_none() is None:
        raise NotFound(f"there is no key {key_id!r}: GET /keys lists them")


async def note_use(session: AsyncSession, used: Mapping[str, datetime]) -> None:
    for key_id, at in sorted(used.items()):
        await session.execute(update(Key).where(Key.id == key_id).values(used_at=at))
