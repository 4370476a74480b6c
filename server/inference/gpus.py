"""GPUs that training runs and engines share on this host.

An engine takes a GPU that no run holds. When runs hold them all, the policy decides about new loads:

    cpu       the engine runs on the CPU (the default: training is never disturbed, models always answer)
    refuse    503 until a GPU is free
    evict     503 as well

And about engines whose GPU a run claims: `cpu` and `evict` end them (the next request loads the model
again, elsewhere), `refuse` lets them stay. Not covered: GPUs of other hosts, and runs outside the service.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncSession

from server.inference.errors import OpenAIError
from server.workers import repository as workers

Policy = Literal["cpu", "refuse", "evict"]


@dataclass(frozen=True)
class Gpus:
    """Indices of this host's GPUs, and of those that runs hold."""

    known: frozenset[int] = frozenset()
    held: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Place:
    """Where an engine is to run; `gpu` None: no index is known, the engine looks for itself."""

    device: Literal["auto", "cpu"] = "auto"
    gpu: int | None = None

    @property
    def env(self) -> dict[str, str]:
        return {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": str(self.gpu)}

    def on(self, gpus: Collection[int]) -> bool:
        """Whether the engine may use one of `gpus`."""
        return self.device != "cpu" and (self.gpu is None or self.gpu in gpus)


async def is_here(session: AsyncSession, worker_id: str) -> bool:
    """Whether the worker is on this host."""
    return (await workers.get(session, worker_id)).host == _host()


def _host() -> str:
    return platform.node() or "localhost"  # as workers register


async def gpus_here(session: AsyncSession) -> Gpus:
    """What the workers of this host have and hold; nothing when none registered."""
    loads = await workers.loads(session)
    known: set[int] = set()
    held: set[int] = set()
    for worker in await workers.all_workers(session):
        if worker.host == _host():
            known.update(int(gpu["index"]) for gpu in worker.gpus)
            held.update(loads.get(worker.id, workers.Load()).busy_gpus())
    return Gpus(frozenset(known), frozenset(held))


def place(gpus: Gpus, policy: Policy, taken: Collection[int] = ()) -> Place:
    """Where the next engine goes; `taken` have an engine already. Raises OpenAIError 503 by policy."""
    if not gpus.held and not gpus.known:
        return Place()
    free = sorted(gpus.known - gpus.held, key=lambda index: (index in taken, -index))
    if free:  # the last one: runs take theirs from the front
        return Place(gpu=free[0])
    if policy == "cpu":
        return Place(device="cpu")
    raise OpenAIError(
        503,
        "Training runs hold every GPU of this host, and NANOCHAT_ENGINE_GPU says to wait for them.",
        code="gpu_busy",
        retry_after_s=60,
    )
