"""Many readers of one run's stream at once, each remembering what it was given."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

from nanochat_client.address import Address
from nanochat_client.stream import AsyncStream, Log, Metric, Rewind

PATIENCE_S = 300.0


@dataclass
class Seen:
    """What one reader has."""

    log: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    ended: bool = False


class Readers(threading.Thread):
    """`count` readers that follow a run to its end, over the SDK; `join` waits for all of them."""

    def __init__(self, url: str, run_id: str, count: int, api_key: str | None = None) -> None:
        super().__init__(daemon=True)
        self._address, self._run_id = Address(url, api_key), run_id
        self.seen = [Seen() for _ in range(count)]
        self.error: BaseException | None = None

    @property
    def reading(self) -> int:
        """How many have been given something."""
        return sum(bool(seen.steps) for seen in self.seen)

    def run(self) -> None:
        try:
            asyncio.run(self._all())
        except BaseException as error:
            self.error = error

    async def _all(self) -> None:
        await asyncio.gather(*(self._one(seen) for seen in self.seen))

    async def _one(self, seen: Seen) -> None:
        stream = AsyncStream(self._address, self._run_id, ("log", "metric"), patience_s=PATIENCE_S)
        async for item in stream:
            if isinstance(item, Log):
                seen.log.append(item.text)
            elif isinstance(item, Rewind):
                seen.steps = [step for step in seen.steps if step <= item.step]
            elif isinstance(item, Metric) and item.step is not None and "train/loss" in item.values:
                seen.steps.append(item.step)
        seen.ended = True
