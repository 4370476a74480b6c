"""What happened, written down for every webhook that asked, in the transaction in which it happens.

So nothing is told that did not happen, and nothing that happened is forgotten. The courier sends it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from server.ids import new_id
from server.models import Run, Webhook, WebhookDelivery, now


async def tell(session: AsyncSession, kind: str, data: dict[str, Any]) -> None:
    """A message of type `kind` for each webhook that wants it; costs one small query when none does."""
    for hook in await session.scalars(select(Webhook)):
        if wants(hook.events, kind):
            add(session, hook.id, kind, data)


def add(session: AsyncSession, webhook_id: str, kind: str, data: dict[str, Any]) -> WebhookDelivery:
    at = now()
    payload = {"type": kind, "timestamp": at.isoformat().replace("+00:00", "Z"), "data": data}
    delivery = WebhookDelivery(
        id=new_id("m"), webhook_id=webhook_id, type=kind, payload=payload, created_at=at, next_at=at
    )
    session.add(delivery)
    return delivery


def wants(events: list[str], kind: str) -> bool:
    """`run.*` covers `run.failed`."""
    return kind in events or f"{kind.partition('.')[0]}.*" in events


async def run_moved(session: AsyncSession, run: Run) -> None:
    """The run is in another state, or new. What it does (its config) stays here."""
    await tell(session, f"run.{run.state}", of_run(run))


def of_run(run: Run) -> dict[str, Any]:
    """What a receiver learns about a run."""
    return {
        "id": run.id, "stage": run.stage, "name": run.name, "state": str(run.state), "reason": run.reason,
        "message": run.message, "attempt": run.attempt, "step": run.step, "steps": run.steps,
        "pipeline": run.pipeline_id, "tags": run.tags, "version": run.version,
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
    }  # fmt: skip
