"""Telling the rest of the process that a run changed, once the change is durable."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncSession

from server.db import after_commit
from server.live.hub import Hub

#: topic of everybody who watches the list of runs
RUNS = "runs"


def announce(session: AsyncSession, hub: Hub, run_id: str, hint: Callable[[], None] | None = None) -> None:
    """Wake those who watch this run or the list, and the reconcile loop (`hint`), after the commit."""

    def tell() -> None:
        hub.notify(run_id)
        hub.notify(RUNS)
        if hint is not None:
            hint()

    after_commit(session, tell)
