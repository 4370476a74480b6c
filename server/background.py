"""What the server's event loop does beside requests, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

log = logging.getLogger(__name__)


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks, all at once, and wait until they are gone. Raises what one of them had raised before."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    for task in begun:
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Periodic:
    """Calls `look` every `every_s` seconds from `start` to `stop`; what it raises is logged."""

    def __init__(self, name: str, every_s: float, look: Callable[[], Awaitable[object]]) -> None:
        self._name, self._every_s, self._look = name, every_s, look
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._again_and_again(), name=self._name)

    async def stop(self) -> None:
        await end(self._task)

    async def _again_and_again(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                log.exception("%s: this look failed; trying again", self._name)
            await asyncio.sleep(self._every_s)
