"""Wake-ups for live readers: says *that* a run changed, never what. Data always comes from the store."""

from __future__ import annotations

import asyncio
from collections import defaultdict


class Hub:
    """In-process notification by topic (a run's id, or "system").

    Not covered: other server replicas (they will be woken over Redis pub/sub).
    """

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)

    def notify(self, topic: str) -> None:
        """Wake everybody who watches `topic`. Call it after the commit."""
        for event in self._waiting.get(topic, ()):
            event.set()

    def watch(self, topic: str) -> Watch:
        """Register interest now; wake-ups from here on are not missed."""
        return Watch(self, topic)


class Watch:
    """`async with hub.watch(topic) as changed: … await changed.wait(timeout_s)`"""

    def __init__(self, hub: Hub, topic: str) -> None:
        self._hub, self._topic, self._event = hub, topic, asyncio.Event()

    async def __aenter__(self) -> Watch:
        self._hub._waiting[self._topic].add(self._event)
        return self

    async def __aexit__(self, *exc: object) -> None:
        watchers = self._hub._waiting[self._topic]
        watchers.discard(self._event)
        if not watchers:
            del self._hub._waiting[self._topic]

    async def wait(self, timeout_s: float) -> bool:
        """True when something changed since the last call; False after `timeout_s` of silence."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout_s)
        except TimeoutError:
            return False
        self._event.clear()
        return True
