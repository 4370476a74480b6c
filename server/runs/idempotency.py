"""`Idempotency-Key`: a creating POST that is sent twice creates once.

The key is stored in the transaction that creates, so both happen or neither. Not covered: keys are
kept for ever (they go with their resource).
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.models import IdempotencyKey
from server.problems import Conflict

Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


async def repeated(
    session: AsyncSession, key: str | None, route: str, body: BaseModel | str, resource_id: str
) -> str | None:
    """Claim `key` for `resource_id`. Returns the id of an earlier POST with the same key and body.

    Raises Conflict when the key came with another body. Without a key nothing is ever a repetition.
    """
    if key is None:
        return None
    text = body if isinstance(body, str) else body.model_dump_json(exclude_unset=True)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    try:
        async with session.begin_nested():
            session.add(IdempotencyKey(key=key, route=route, body_sha256=digest, resource_id=resource_id))
    except IntegrityError:
        pass
    else:
        return None
    earlier = await session.get(IdempotencyKey, (key, route))
    if earlier is None or earlier.body_sha256 != digest:
        raise Conflict(
            "this Idempotency-Key came with another body before: use a fresh key for a new request",
            code="idempotency_conflict",
        )
    return earlier.resource_id


async def forget(session: AsyncSession, resource_id: str) -> None:
    """Drop the keys of a resource that is deleted."""
    await session.execute(delete(IdempotencyKey).where(IdempotencyKey.resource_id == resource_id))
