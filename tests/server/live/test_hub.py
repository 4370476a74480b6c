"""Many readers are woken together, none is forgotten, and one look into the store serves them all."""

from __future__ import annotations

import asyncio
import time

from server.live.hub import FEW, PAUSE_PER_READER_S, SHARED_S, Hub


async def test_many_readers_are_woken_together_and_the_last_change_reaches_all() -> None:
    hub = Hub()
    seen: list[tuple[int, float]] = []
    changes = 0
    readers = 10 * FEW

    async def read() -> None:
        async with hub.watch("r") as changed:
            ready.release()
            while not seen or changes < 50 or seen[-1][0] < 50:
                assert await changed.wait(5)
                seen.append((changes, time.monotonic()))
                if changes == 50:
                    return

    ready = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(read()) for _ in range(readers)]
    for _ in tasks:
        await ready.acquire()
    for _ in range(50):
        changes += 1
        hub.notify("r")
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    wakes = len(seen) / readers
    assert 1 <= wakes < 10
    assert seen[-1][0] == 50
    assert not hub._waiting and not hub._woken


async def test_one_look_serves_all_until_something_changes() -> None:
    hub, looks = Hub(), 0

    async def look() -> int:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0)
        return looks

    assert await asyncio.gather(*(hub.shared("r", "here", look) for _ in range(10))) == [1] * 10
    assert await hub.shared("r", "there", look) == 2
    hub.notify("r")
    assert await hub.shared("r", "here", look) == 3
    first = asyncio.create_task(hub.shared("r", "here", look))
    first.cancel()  # a reader that leaves takes nothing from the others
    assert await hub.shared("r", "here", look) == 3
    assert PAUSE_PER_READER_S * 1000 < SHARED_S
