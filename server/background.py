"""What the server's event loop does beside requests, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks, all at once, and wait until they are gone. Raises what one of them had raised before."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    for task in begun:
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """What `call` returns, from a thread; it is waited for also when this task is cancelled.

    For what must not be used while the thread still does: `asyncio.to_thread` leaves it at once.
    """
    work = asyncio.get_running_loop().run_in_executor(None, call, *arguments)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as asked:
            cancelled = asked
    if cancelled is not None:
        raise cancelled
    return work.result()


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
