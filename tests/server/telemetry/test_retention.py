"""What is kept of ended runs: everything by default, and what the settings say otherwise."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from server.db import Database
from server.models import Run, now
from server.telemetry.retention import TAIL_BYTES, Retention
from tests.server.fake_worker import FakeWorker
from tests.server.telemetry.test_ingest import Shipping, begin, metric
from tests.services import Service


def trained(service: Service, worker: FakeWorker, **body: Any) -> Shipping:
    """An ended run with 3,000 steps of one metric, 900 of another, 192 KiB of log in chunks of 16."""
    shipping = begin(service, worker, **body)
    for start in range(0, 3000, 1000):
        shipping.events(*[
            metric(step, train__loss=math.sin(step) + (50 if step == 1234 else 0),
                   **({"val__bpb": 1.0} if step < 900 else {}))
            for step in range(start, start + 1000)
        ])  # fmt: skip
    shipping.events({"kind": "sample", "step": 3000, "prompt": "p", "text": "t"})
    for number in range(12):
        shipping.log(bytes([97 + number]) * (16 * 1024 - 1) + b"\n", number * 16 * 1024)
    worker.finish(shipping.claim)
    return shipping


def series(shipping: Shipping, **params: Any) -> dict[str, Any]:
    found = shipping.get(f"/runs/{shipping.run_id}/metrics", **params)["series"]
    return {entry["key"]: entry for entry in found}


async def look(service: Service, ended_days_ago: float, **settings: float) -> tuple[int, int]:
    db = Database(service.settings.sqlalchemy_url)
    try:
        async with db.write() as session:
            await session.execute(update(Run).values(ended_at=now() - timedelta(days=ended_days_ago)))
        return await Retention(service.settings.model_copy(update=settings), db).look()
    finally:
        await db.close()


async def test_old_series_are_thinned_and_old_logs_keep_their_end(service: Service) -> None:
    worker = FakeWorker(service)
    shipping, kept = trained(service, worker), begin(service, worker, tags=["keep"])
    kept.log(b"x" * (TAIL_BYTES + 1), 0)
    kept.log(b"y" * (TAIL_BYTES + 1), TAIL_BYTES + 1)
    kept.events(metric(1, train__loss=1.0))
    worker.finish(kept.claim)
    before = series(shipping)
    assert await look(service, 29, keep_logs_days=30, keep_metrics_days=30) == (0, 0)
    assert await look(service, 31) == (0, 0)
    assert await look(service, 31, keep_logs_days=30, keep_metrics_days=30) == (1, 1)
    assert await look(service, 31, keep_logs_days=30, keep_metrics_days=30) == (0, 0)
    after = series(shipping, max_points=100_000)
    assert after["val/bpb"] == before["val/bpb"] and len(after["val/bpb"]["x"]) == 900
    assert after["train/loss"] == before["train/loss"]  # what a chart showed before, it shows now
    assert 500 <= len(after["train/loss"]["x"]) <= 1000 and max(after["train/loss"]["y"]) > 49
    assert len(shipping.get(f"/runs/{shipping.run_id}/samples")["items"]) == 1
    log = shipping.get(f"/runs/{shipping.run_id}/logs", limit=1024 * 1024)
    assert (log["first"], log["last"], log["end"]) == (128 * 1024, 192 * 1024, 192 * 1024)
    assert log["items"][0]["text"].startswith("iii")
    frames = [frame for frame in stream(shipping) if frame["op"] == "gap"]
    assert [(f["channel"], f["from"], f["to"], f["reason"]) for f in frames] == [
        ("log", 0, 128 * 1024, "expired"), ("metric", 0, 3001, "expired"),
    ]  # fmt: skip
    assert kept.get(f"/runs/{kept.run_id}/logs")["first"] == 0
    assert [frame for frame in stream(kept) if frame["op"] == "gap"] == []


def stream(shipping: Shipping) -> list[dict[str, Any]]:
    import json

    answer = shipping.service.client.get(f"/runs/{shipping.run_id}/stream")
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_run_that_goes_on_keeps_everything(service: Service) -> None:
    shipping = begin(service, FakeWorker(service))
    shipping.events(metric(1, train__loss=1.0))
    assert await look(service, 99, keep_logs_days=1, keep_metrics_days=1) == (0, 0)
