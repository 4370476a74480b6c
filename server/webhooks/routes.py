"""Webhooks over HTTP. They make the server call elsewhere, so they are an administrator's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat_client.types import Page, ProblemItem
from nanochat_client.types.webhooks import PING, Delivery, Webhook, WebhookCreate, WebhookCreated
from server import models
from server.deps import Read, Write
from server.ids import new_id
from server.problems import Conflict, Invalid
from server.runs import idempotency
from server.runs.resolve import check_text
from server.webhooks import outbox, repository, signing
from server.webhooks.address import Refused

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
MOST = 50


@router.post("", status_code=201)
async def create_webhook(
    body: WebhookCreate, request: Request, session: Write, key: idempotency.Key = None
) -> WebhookCreated:
    """Tell `url` what happens to runs. The answer shows the secret that signs, and nothing shows it again.

    422 also for an address that is none of the internet, unless NANOCHAT_WEBHOOK_NETWORKS allows it.
    """
    check_text(body.name, "/name")
    fresh = new_id("h")
    if earlier := await idempotency.repeated(session, key, "POST /webhooks", body, fresh):
        row = await repository.get(session, earlier)
    else:
        await _check_url(request, body.url)
        if len(await repository.all_webhooks(session)) >= MOST:
            raise Conflict(f"there are {MOST} webhooks already: delete one first", code="too_many")
        row = models.Webhook(
            id=fresh, url=body.url, name=body.name, secret=signing.new_secret(),
            events=sorted(set(body.events)),
        )  # fmt: skip
        session.add(row)
        await session.flush()
    view = await _view(session, row, {})
    return WebhookCreated(**view.model_dump(), secret=row.secret)


@router.get("")
async def list_webhooks(session: Read) -> Page[Webhook]:
    """Every webhook, and how the last delivery went."""
    counts = await repository.pending(session)
    return Page(items=[await _view(session, row, counts) for row in await repository.all_webhooks(session)])


@router.delete("/{webhook_id}", status_code=204)
async def delete_webhook(webhook_id: str, session: Write) -> None:
    """It is told nothing more; what was not delivered yet is dropped."""
    await session.delete(await repository.get(session, webhook_id))
    await idempotency.forget(session, webhook_id)


@router.get("/{webhook_id}/deliveries")
async def list_deliveries(
    webhook_id: str, session: Read, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> Page[Delivery]:
    """The last messages, the newest first. Of those that ended 200 are kept, for two weeks."""
    await repository.get(session, webhook_id)
    rows = await repository.deliveries(session, webhook_id, limit)
    return Page(items=[Delivery.model_validate(row, from_attributes=True) for row in rows])


@router.post("/{webhook_id}/ping", status_code=202)
async def ping_webhook(webhook_id: str, session: Write) -> Delivery:
    """Send a message that says nothing, to see whether it arrives."""
    hook = await repository.get(session, webhook_id)
    delivery = outbox.add(session, hook.id, PING, {"webhook": hook.id, "name": hook.name})
    await session.flush()
    return Delivery.model_validate(delivery, from_attributes=True)


async def _check_url(request: Request, url: str) -> None:
    try:
        await request.app.state.courier.check(url)
    except Refused as error:
        raise Invalid(str(error), errors=[ProblemItem(pointer="/url", message=str(error))]) from None


async def _view(session: AsyncSession, row: models.Webhook, counts: dict[str, int]) -> Webhook:
    last = await repository.last_ended(session, row.id)
    return Webhook(
        id=row.id, url=row.url, events=row.events, name=row.name, created_at=row.created_at,
        pending=counts.get(row.id, 0), last_status=last.status if last else None,
        last_error=last.error if last else None,
    )  # fmt: skip
