"""Alerts in the database, in the outbox of the webhooks, and among the events of runs: together or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, and_, delete, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from server.alerts.rules import Finding
from server.ids import new_id
from server.models import Alert, Event, Run, now
from server.problems import NotFound
from server.runs import repository as runs
from server.webhooks import outbox

KEEP_DAYS = 90


async def still_open(session: AsyncSession) -> Sequence[Alert]:
    return (await session.scalars(select(Alert).where(Alert.cleared_at.is_(None)))).all()


def newest_first(
    *, run_id: str | None, is_open: bool | None, before: tuple[datetime, str] | None
) -> Select[Alert]:
    query = select(Alert).order_by(Alert.created_at.desc(), Alert.id.desc())
    if run_id is not None:
        query = query.where(Alert.run_id == run_id)
    if is_open is not None:
        query = query.where(Alert.cleared_at.is_(None) if is_open else Alert.cleared_at.is_not(None))
    if before is not None:
        at, alert_id = before
        same = and_(Alert.created_at == at, Alert.id < alert_id)
        query = query.where(or_(Alert.created_at < at, same))
    return query


async def raise_one(session: AsyncSession, found: Finding) -> list[str]:
    """Open the alert. Returns the runs whose events say so; none when another server was quicker."""
    row = Alert(
        id=new_id("l"), kind=str(found.kind), subject=found.subject, run_id=found.run_id,
        worker_id=found.worker_id, message=found.message, value=found.value, threshold=found.threshold,
        created_at=now(),
    )  # fmt: skip
    try:
        async with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return []
    await outbox.tell(session, "alert.raised", _payload(row))
    return await _note(session, found.runs, row, f"alert: {row.message}")


async def clear(session: AsyncSession, alert_id: str, live: Iterable[str]) -> list[str]:
    """The alert is over. `live`: runs that go on and whose events should say so."""
    row = await session.get(Alert, alert_id, with_for_update=True, populate_existing=True)
    if row is None or row.cleared_at is not None:
        return []
    row.cleared_at = now()
    await session.flush()
    await outbox.tell(session, "alert.cleared", _payload(row))
    return await _note(session, live, row, f"over: {row.message}")


async def sweep(session: AsyncSession) -> None:
    """Alerts that were over long ago are forgotten."""
    await session.execute(delete(Alert).where(Alert.cleared_at < now() - timedelta(days=KEEP_DAYS)))


async def _note(session: AsyncSession, run_ids: Iterable[str], alert: Alert, message: str) -> list[str]:
    """A warning among the events of each run; those that were deleted meanwhile are left out."""
    told = []
    for run_id in sorted(set(run_ids)):
        try:
            run: Run = await runs.get(session, run_id, lock=True)
        except NotFound:
            continue
        run.last_seq += 1
        data = {"message": message, "alert": alert.kind, "alert_id": alert.id}
        session.add(
            Event(
                run_id=run.id, seq=run.last_seq, attempt=run.attempt, kind="warning", step=run.step,
                t=now().timestamp(), data=data,
            )
        )  # fmt: skip
        await session.flush()
        told.append(run_id)
    return told


def _payload(row: Alert) -> dict[str, object]:
    return {
        "id": row.id, "kind": row.kind, "run": row.run_id, "worker": row.worker_id, "message": row.message,
        "value": row.value, "threshold": row.threshold, "raised_at": row.created_at.isoformat(),
        "cleared_at": row.cleared_at.isoformat() if row.cleared_at else None,
    }  # fmt: skip
