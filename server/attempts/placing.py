"""What one node of a run takes from its worker."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.stages import STAGES
from server.models import Run, Worker
from server.problems import Conflict
from server.workers import repository as workers


def share(run: Run) -> int:
    """GPUs of each node."""
    return run.gpus // run.nodes


def ranks(run: Run) -> int:
    """Processes of each node: one per GPU, else what the config asks for, divided."""
    if not STAGES[run.stage].distributed:
        return 1
    return share(run) or int(run.config["processes"]) // run.nodes


async def free_gpus(session: AsyncSession, worker: Worker, count: int) -> list[int]:
    """GPUs to grant. Raises Conflict when the worker has no room."""
    load = (await workers.loads(session)).get(worker.id, workers.Load())
    busy = load.busy_gpus()
    free = [gpu["index"] for gpu in worker.gpus if gpu["index"] not in busy]
    if len(free) < count:
        raise not_claimable(f"worker {worker.name} has {len(free)} free GPU(s), the run needs {count}")
    if len(load.live) >= worker.slots:
        raise not_claimable(f"worker {worker.name} has no free slot")
    return free[:count]


def not_claimable(detail: str) -> Conflict:
    return Conflict(f"{detail}: drop the message and take the next", code="not_claimable")
