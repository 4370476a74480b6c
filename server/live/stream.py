"""One reader of one run: replay from its cursors out of the store, then follow, without hole or duplicate.

Cursors: `log` counts bytes, `metric` event sequence numbers, `state` the run's version. Each says what
the reader has; what lies after it is sent. The hub only wakes; data always comes from the store.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

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


class RunStream:
    """Frames of one run for one reader. `cursors` may be changed while it runs (a new subscription)."""

    def __init__(self, db: Database, hub: Hub, run_id: str, cursors: dict[str, int]) -> None:
        self.db, self.hub, self.run_id, self.cursors = db, hub, run_id, cursors

    async def frames(self) -> AsyncIterator[Frame | None]:
        """Every frame from the cursors on; None when there was nothing new for a while. Ends with `end`."""
        async with self.hub.watch(self.run_id) as changed:
            while True:
                full = False
                async with self.db.read() as session:
                    try:
                        run = await runs.get(session, self.run_id)
                    except NotFound:
                        yield {"op": "error", "code": "deleted"}
                        return
                    found: list[Frame] = []
                    if "log" in self.cursors:
                        full |= await self._log(session, run, found)
                    if "metric" in self.cursors:
                        full |= await self._metrics(session, run, found)
                    if "state" in self.cursors:
                        self._state(run, found)
                for frame in found:
                    yield frame
                if full:
                    continue  # there is more in the store
                if run.state in TERMINAL and self.cursors:
                    yield {"op": "end", "state": run.state, "last": dict(self.cursors)}
                    return
                if not await changed.wait(SAFETY_NET_S):
                    yield None

    async def _log(self, session: Any, run: Run, found: list[Frame]) -> bool:
        first = min(self.cursors["log"], run.log_end)
        data = await repository.log_bytes(session, run.id, first, LOG_BYTES)
        at_end = first + len(data) >= run.log_end
        text, taken = repository.decode_prefix(data, final=at_end and run.state in TERMINAL)
        if not text:
            return False
        last = first + taken
        items = [{"offset": first, "text": text}]
        found.append({"op": "batch", "channel": "log", "first": first, "last": last, "items": items})
        self.cursors["log"] = last
        return not at_end

    async def _metrics(self, session: Any, run: Run, found: list[Frame]) -> bool:
        rows = await repository.events(session, run.id, self.cursors["metric"], EVENTS, ["metric", "phase"])
        items: list[Frame] = []
        for row in rows:
            if row.kind == "metric":
                items.append(
                    {"seq": row.seq, "step": row.step, "t": row.t, "values": row.data.get("values", {})}
                )
            elif row.attempt > 1 and begins_again(row.data, row.attempt):
                found += _metric_batch(items)
                items = []
                found.append({"op": "rewind", "channel": "metric", "step": row.step, "attempt": row.attempt})
        found += _metric_batch(items)
        if rows:
            self.cursors["metric"] = rows[-1].seq
        return len(rows) == EVENTS

    def _state(self, run: Run, found: list[Frame]) -> None:
        if run.version > self.cursors["state"]:
            self.cursors["state"] = run.version
            view = run_view(run).model_dump(mode="json")
            found.append(
                {"op": "state", "channel": "state", "last": run.version, "state": run.state, "run": view}
            )


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
