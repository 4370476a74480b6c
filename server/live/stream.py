"""One reader of one run: replay from its cursors out of the store, then follow, without hole or duplicate.

Cursors: `log` counts bytes, `metric` event sequence numbers, `state` the run's version. Each says what
the reader has; what lies after it is sent. What is kept no longer, and what a cursor names that never was,
is a `gap` frame: the reader goes on from its `to`. The hub only wakes; data always comes from the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.live.hub import Hub
from server.models import Run
from server.problems import NotFound
from server.runs import repository as runs
from server.runs.states import TERMINAL
from server.runs.views import run_view
from server.telemetry import repository
from server.telemetry.ingest import begins_again

CHANNELS = ("log", "metric", "state")
LOG_BYTES = 64 * 1024
EVENTS = 500
SAFETY_NET_S = 1.0
Frame = dict[str, Any]
Cursors = dict[str, int]


@dataclass(slots=True)
class Look:
    """What the store had for a reader at certain cursors: frames as JSON, the cursors after them."""

    frames: list[str]
    cursors: Cursors
    more: bool = False
    """There is more in the store."""
    over: bool = False
    """Nothing will follow."""


class RunStream:
    """Frames of one run for one reader. `cursors` may be changed while it runs (a new subscription)."""

    def __init__(self, db: Database, hub: Hub, run_id: str, cursors: Cursors) -> None:
        self.db, self.hub, self.run_id, self.cursors = db, hub, run_id, cursors

    async def frames(self) -> AsyncIterator[str | None]:
        """Every frame from the cursors on, as JSON; None when there was nothing new for a while.

        Ends with `end`.
        """
        async with self.hub.watch(self.run_id) as changed:
            while True:
                before = dict(self.cursors)
                place = tuple(sorted(before.items()))
                found = await self.hub.shared(self.run_id, place, partial(self._look, dict(before)))
                if self.cursors != before:
                    continue  # a subscription came in between: look from there
                self.cursors = dict(found.cursors)
                for frame in found.frames:
                    yield frame
                if found.over:
                    return
                if not found.more and not await changed.wait(SAFETY_NET_S):
                    yield None

    async def _look(self, cursors: Cursors) -> Look:
        frames: list[Frame] = []
        async with self.db.read() as session:
            try:
                run = await runs.get(session, self.run_id)
            except NotFound:
                return Look([_json({"op": "error", "code": "deleted"})], cursors, over=True)
            more = False
            if "log" in cursors:
                more |= await _log(session, run, cursors, frames)
            if "metric" in cursors:
                more |= await _metrics(session, run, cursors, frames)
            if "state" in cursors:
                _state(run, cursors, frames)
        over = not more and bool(cursors) and run.state in TERMINAL
        if over:
            frames.append({"op": "end", "state": run.state, "last": dict(cursors)})
        return Look([_json(frame) for frame in frames], cursors, more, over)


def _json(frame: Frame) -> str:
    return orjson.dumps(frame).decode()


async def _log(session: AsyncSession, run: Run, cursors: Cursors, frames: list[Frame]) -> bool:
    first = _kept("log", cursors, run.log_start, run.log_end, frames)
    data = await repository.log_bytes(session, run.id, first, LOG_BYTES)
    at_end = first + len(data) >= run.log_end
    text, taken = repository.decode_prefix(data, final=at_end and run.state in TERMINAL)
    if not text:
        return False
    last = first + taken
    items = [{"offset": first, "text": text}]
    frames.append({"op": "batch", "channel": "log", "first": first, "last": last, "items": items})
    cursors["log"] = last
    return not at_end


async def _metrics(session: AsyncSession, run: Run, cursors: Cursors, frames: list[Frame]) -> bool:
    if _kept("metric", cursors, run.metric_start, run.last_seq, frames) >= run.last_seq:
        return False
    rows = await repository.events(session, run.id, cursors["metric"], EVENTS, ["metric", "phase"])
    items: list[Frame] = []
    for row in rows:
        if row.kind == "metric":
            items.append({"seq": row.seq, "step": row.step, "t": row.t, "values": row.data.get("values", {})})
        elif row.attempt > 1 and begins_again(row.data, row.attempt):
            frames += _metric_batch(items)
            items = []
            frames.append({"op": "rewind", "channel": "metric", "step": row.step, "attempt": row.attempt})
    frames += _metric_batch(items)
    if rows:
        cursors["metric"] = rows[-1].seq
    return len(rows) == EVENTS


def _kept(channel: str, cursors: Cursors, start: int, end: int, frames: list[Frame]) -> int:
    """The reader's cursor, brought to where the store has something; a frame says so if it was moved."""
    asked = cursors[channel]
    if start <= asked <= end:
        return asked
    to, reason = (start, "expired") if asked < start else (end, "ahead")
    frames.append({"op": "gap", "channel": channel, "from": asked, "to": to, "reason": reason})
    cursors[channel] = to
    return to


def _state(run: Run, cursors: Cursors, frames: list[Frame]) -> None:
    if run.version <= cursors["state"]:
        return
    cursors["state"] = run.version
    view = run_view(run).model_dump(mode="json")
    frames.append({"op": "state", "channel": "state", "last": run.version, "state": run.state, "run": view})


def _metric_batch(items: list[Frame]) -> list[Frame]:
    if not items:
        return []
    return [
        {
            "op": "batch",
            "channel": "metric",
            "first": items[0]["seq"],
            "last": items[-1]["seq"],
            "items": items,
        }
    ]
