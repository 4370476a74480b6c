"""Wake-ups for live readers: says *that* a run changed, never what. Data always comes from the store."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
#: readers of one topic are woken at most once in this time for each of them: 0.2 s for a thousand
PAUSE_PER_READER_S = 0.0002
#: fewer readers than this are woken at once
FEW = 20
#: what was read for one reader serves others this long, or until the topic changes
SHARED_S = 0.5
#: readers at more places than this (they replay) share nothing
PLACES = 64


class Hub:
    """In-process notification by topic (a run's id, or "system"), and reads that many readers share.

    Other servers on the same database hear of it through `tell_others` (server/live/replicas.py).
    """

    def __init__(self) -> None:
        self.tell_others: Callable[[str], None] | None = None
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._woken: dict[str, float] = {}
        self._due: dict[str, asyncio.TimerHandle] = {}
        self._shared: dict[str, dict[Hashable, tuple[float, asyncio.Task[Any]]]] = {}

    def notify(self, topic: str, *, here_only: bool = False) -> None:
        """Wake all who watch `topic`, many of them together and not too often. Call it after the commit.

        `here_only`: others know already.
        """
        if self.tell_others is not None and not here_only:
            self.tell_others(topic)
        self._shared.pop(topic, None)
        readers = len(self._waiting.get(topic, ()))
        if readers < FEW:
            return self._wake(topic)
        if topic not in self._due:
            wait_s = self._woken.get(topic, 0.0) + readers * PAUSE_PER_READER_S - time.monotonic()
            loop = asyncio.get_running_loop()
            self._due[topic] = loop.call_later(max(0.0, wait_s), self._wake, topic)
        return None

    def _wake(self, topic: str) -> None:
        if due := self._due.pop(topic, None):
            due.cancel()
        if topic in self._waiting:
            self._woken[topic] = time.monotonic()
        for event in self._waiting.get(topic, ()):
            event.set()

    def watch(self, topic: str) -> Watch:
        """Register interest now; wake-ups from here on are not missed."""
        return Watch(self, topic)

    async def shared(self, topic: str, place: Hashable, look: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What `look` finds; readers at the same place of a topic that has not changed share one look."""
        known = self._shared.setdefault(topic, {})
        found = known.get(place)
        if found is None or time.monotonic() - found[0] > SHARED_S or found[1].cancelled():
            if len(known) >= PLACES:
                known.clear()
            found = known[place] = (time.monotonic(), asyncio.create_task(look()))
        result: T = await asyncio.shield(found[1])
        return result

    def forget(self, topic: str) -> None:
        """Nobody watches `topic` any more."""
        self._waiting.pop(topic, None)
        self._woken.pop(topic, None)
        self._shared.pop(topic, None)


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
            self._hub.forget(self._topic)

    async def wait(self, timeout_s: float) -> bool:
        """True when something changed since the last call; False after `timeout_s` of silence."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
