"""Plans over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from nanochat_client.types import Plan, PlanCreate
from server.deps import Read, ServicesDep
from server.plans import service

router = APIRouter(tags=["plans"])


@router.post("/plans")
async def plan(body: PlanCreate, session: Read, services: ServicesDep) -> Plan:
    """What a run would need: memory, steps, hours, disk; and what is wrong with it. Nothing is started.

    A config with problems is an answer too: `problems` says where and what would be valid. 422: there is no
    such preset, or no such GPU.
    """
    return await service.plan(session, body, services.settings.base_dir)
