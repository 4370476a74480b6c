"""Alerts over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from nanochat_client.types import Alert, Page
from server.alerts import repository
from server.deps import Read
from server.runs.pages import Cursor, Limit, Text, decode, next_cursor
from server.runs.resolve import check_text

router = APIRouter(tags=["alerts"])


@router.get("/alerts")
async def list_alerts(
    session: Read,
    run: Text = None,
    is_open: Annotated[bool | None, Query(alias="open")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[Alert]:
    """Alerts, newest first. `open=true`: those that are not over. They are kept for 90 days after."""
    check_text(run or "", "/run")
    query = repository.newest_first(run_id=run, is_open=is_open, before=decode(cursor))
    rows = (await session.scalars(query.limit(limit + 1))).all()
    items = [Alert.model_validate(row, from_attributes=True) for row in rows[:limit]]
    return Page(items=items, next_cursor=next_cursor(rows, limit))
