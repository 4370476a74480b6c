"""Webhooks and what is to be delivered to them, in the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from server.ids import is_id
from server.models import Webhook, WebhookDelivery, now
from server.problems import NotFound

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"


async def get(session: AsyncSession, webhook_id: str) -> Webhook:
    """Raises NotFound."""
    found = await session.get(Webhook, webhook_id) if is_id(webhook_id) else None
    if found is None:
        raise NotFound(f"there is no webhook {webhook_id!r}: GET /webhooks lists them")
    return found


async def all_webhooks(session: AsyncSession) -> Sequence[Webhook]:
    """The oldest first."""
    return (await session.scalars(select(Webhook).order_by(Webhook.created_at, Webhook.id))).all()


async def pending(session: AsyncSession) -> dict[str, int]:
    """Messages to deliver, by webhook."""
    query = select(WebhookDelivery.webhook_id, func.count()).where(WebhookDelivery.state == PENDING)
    return {key: count for key, count in await session.execute(query.group_by(WebhookDelivery.webhook_id))}  # noqa: C416


async def last_ended(session: AsyncSession, webhook_id: str) -> WebhookDelivery | None:
    query = select(WebhookDelivery).where(
        WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.ended_at.is_not(None)
    )
    return (await session.scalars(query.order_by(WebhookDelivery.ended_at.desc()).limit(1))).first()


async def deliveries(session: AsyncSession, webhook_id: str, limit: int) -> Sequence[WebhookDelivery]:
    """The newest first."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    query = query.order_by(WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc())
    return (await session.scalars(query.limit(limit))).all()


async def due(session: AsyncSession, busy: Collection[str], limit: int) -> list[WebhookDelivery]:
    """The oldest message to send of each webhook, of those that are not `busy`."""
    query = select(WebhookDelivery).where(WebhookDelivery.state == PENDING, WebhookDelivery.next_at <= now())
    if busy:
        query = query.where(WebhookDelivery.webhook_id.not_in(busy))
    first: dict[str, WebhookDelivery] = {}
    for delivery in await session.scalars(query.order_by(WebhookDelivery.created_at, WebhookDelivery.id)):
        first.setdefault(delivery.webhook_id, delivery)
    return list(first.values())[:limit]


async def take(session: AsyncSession, delivery: WebhookDelivery, again_s: float) -> bool:
    """Count one more try, unless another process has taken it. It is due again if this process dies."""
    taken = await session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.id == delivery.id,
            WebhookDelivery.state == PENDING,
            WebhookDelivery.tries == delivery.tries,
        )
        .values(tries=delivery.tries + 1, next_at=now() + timedelta(seconds=again_s))
        .execution_options(synchronize_session=False)
    )
    return cast(CursorResult[Any], taken).rowcount == 1


async def settle(
    session: AsyncSession, delivery_id: str, *, status: int | None, error: str | None, again_s: float | None
) -> None:
    """How a try ended: delivered (no `error`), to be tried again in `again_s`, or given up."""
    values: dict[str, Any] = {"status": status, "error": error}
    if error is not None and again_s is not None:
        values["next_at"] = now() + timedelta(seconds=again_s)
    else:
        values |= {"state": FAILED if error else DELIVERED, "next_at": None, "ended_at": now()}
    await session.execute(update(WebhookDelivery).where(WebhookDelivery.id == delivery_id).values(**values))


async def sweep(session: AsyncSession, *, keep: int, waiting: int, before: datetime) -> None:
    """Keep the record small: of each webhook the newest `keep` that ended, none from before `before`, and at
    most `waiting` messages to deliver; older ones are given up."""
    ended = WebhookDelivery.state != PENDING
    await session.execute(delete(WebhookDelivery).where(ended, WebhookDelivery.created_at < before))
    for hook in await all_webhooks(session):
        mine = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == hook.id)
        newest = mine.order_by(WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc())
        too_old = (await session.scalars(newest.where(ended).offset(keep))).all()
        await session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(too_old)))
        too_many = (await session.scalars(newest.where(~ended).offset(waiting))).all()
        for delivery_id in too_many:
            error = f"given up: more than {waiting} messages waited for this webhook"
            await settle(session, delivery_id, status=None, error=error, again_s=None)
