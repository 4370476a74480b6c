"""The state of the whole: workers, queue, database."""

from __future__ import annotations

import asyncio
from functools import cache

from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import System
from server import migrate
from server.deps import Services
from server.runs import repository as runs
from server.runs.states import LIVE, QUEUED
from server.workers import repository as workers


async def look(session: AsyncSession, services: Services, version: str, *, auth: bool) -> System:
    """What `GET /system` answers; `auth`: whether callers must show a key."""
    by_state = await runs.count_by_state(session)
    return System(
        version=version,
        workers=await workers.views(session),
        queued=by_state.get(QUEUED, 0),
        running=sum(by_state.get(state, 0) for state in LIVE),
        database="sqlite" if services.db.is_sqlite else "postgresql",
        auth=auth,
    )


async def unready(session: AsyncSession) -> str | None:
    """Why the service cannot work, or None. Raises whatever the database raises when it does not answer."""
    found = await (await session.connection()).run_sync(migrate.current)
    needed = await asyncio.to_thread(cache_head)
    if found == needed:
        return None
    return f"the database is at revision {found}, this code needs {needed}: run `python -m server.migrate`"


@cache
def cache_head() -> str:
    return migrate.head()
