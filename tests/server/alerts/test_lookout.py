"""Alerts over a real store: raised once, told to the run and to webhooks, cleared when it is over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from server.alerts.lookout import Lookout
from server.db import Database
from server.live.hub import Hub
from server.models import Webhook, Worker, now
from server.settings import Settings
from server.webhooks import repository as webhooks
from tests.server.fake_worker import FakeWorker, store_checkpoint
from tests.server.telemetry.test_ingest import begin, metric
from tests.services import Service

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """The service itself does not look: the tests do."""
    return settings.model_copy(update={"alert_every_s": 0.0})


class Watched:
    """A lookout with a clock of its own, and what a reader sees."""

    def __init__(self, service: Service, db: Database) -> None:
        self.service, self.db, self.now_s = service, db, 1000.0
        self.lookout = self.another()

    def another(self) -> Lookout:
        return Lookout(self.service.settings, self.db, Hub(), lambda: self.now_s)

    async def look(self, wait_s: float = 5.0) -> None:
        self.now_s += wait_s
        await self.lookout.look()

    def alerts(self, **params: Any) -> list[dict[str, Any]]:
        return list(self.service.client.get("/alerts", params=params).json()["items"])

    def open_kinds(self) -> list[str]:
        return sorted(alert["kind"] for alert in self.alerts(open=True))

    def warnings(self, run_id: str) -> list[str]:
        events = self.service.client.get(f"/runs/{run_id}/events").json()["items"]
        return [str(e["data"]["message"]) for e in events if e["kind"] == "warning"]


@pytest.fixture
async def watched(service: Service) -> AsyncIterator[Watched]:
    db = Database(service.settings.sqlalchemy_url)
    yield Watched(service, db)
    await db.close()


async def test_a_spike_is_raised_once_and_cleared_and_everybody_hears_it(watched: Watched) -> None:
    async with watched.db.write() as session:
        session.add(Webhook(id="h1", url="http://127.0.0.1:9/", events=["alert.*"], secret="whsec_AAAA"))
    shipping = begin(watched.service, FakeWorker(watched.service))
    shipping.events(*[metric(step, train__loss=3.0) for step in range(60)])
    await watched.look()
    assert watched.alerts() == []
    shipping.events(metric(60, train__loss=9.0))
    for _ in range(3):
        await watched.look()
    [alert] = watched.alerts()
    assert (alert["kind"], alert["run_id"], alert["value"]) == ("loss_spike", shipping.run_id, 9.0)
    assert alert["cleared_at"] is None and watched.alerts(open=False) == []
    await watched.another().look()  # another server, or this one after a restart
    assert len(watched.alerts()) == 1
    shipping.events(*[metric(step, train__loss=3.0) for step in range(61, 80)])
    await watched.look()
    assert [a["cleared_at"] is None for a in watched.alerts(run=shipping.run_id)] == [False]
    said = watched.warnings(shipping.run_id)
    assert len(said) == 2 and said[0].startswith("alert: ") and said[1].startswith("over: ")
    run = shipping.run()
    assert run["state"] == "running"
    async with watched.db.read() as session:
        told = await webhooks.deliveries(session, "h1", 9)
        kinds = [delivery.type for delivery in reversed(told)]
        assert kinds == ["alert.raised", "alert.cleared"]
        assert told[0].payload["data"]["run"] == shipping.run_id


async def test_a_loss_that_is_no_number_is_an_alert_until_the_run_is_over(watched: Watched) -> None:
    shipping = begin(watched.service, FakeWorker(watched.service), max_restarts=0)
    shipping.events(metric(1, train__loss=3.0))
    await watched.look()
    shipping.raw_events(
        b'{"t": 1, "kind": "metric", "step": 2, "values": {"train/loss": null}}\n', shipping.offset
    )
    await watched.look()
    assert watched.open_kinds() == ["nan"]
    shipping.worker.finish(shipping.claim, "failed", reason="nan_loss")
    await watched.look()
    await watched.look()
    assert watched.open_kinds() == [] and [a["kind"] for a in watched.alerts()] == ["nan"]


@sqlite_only
async def test_a_run_that_ends_of_nan_before_anybody_looks_is_an_alert(watched: Watched) -> None:
    shipping = begin(watched.service, FakeWorker(watched.service), max_restarts=0)
    await watched.look()
    shipping.worker.finish(shipping.claim, "failed", reason="nan_loss")
    await watched.look()
    await watched.look()
    assert [(a["kind"], a["cleared_at"] is None) for a in watched.alerts()] == [("nan", False)]


@sqlite_only
async def test_a_trainer_that_says_nothing_is_stalled_until_it_speaks(watched: Watched) -> None:
    shipping = begin(watched.service, FakeWorker(watched.service))
    shipping.events(metric(1, train__loss=3.0))
    await watched.look()
    await watched.look(14 * 60)
    shipping.log(b"a log line is no progress\n", 0)
    assert watched.open_kinds() == []
    await watched.look(60)
    await watched.look(60)  # the alert among the run's events is no progress either
    assert "stalled" in watched.open_kinds()
    shipping.events(metric(2, train__loss=3.0))
    await watched.look()
    assert "stalled" not in watched.open_kinds()


@sqlite_only
async def test_heat_and_a_full_disk_are_told_to_the_runs_that_have_them(watched: Watched) -> None:
    worker = FakeWorker(watched.service, gpus=2)
    tokenizer = begin(watched.service, worker)
    worker.finish(tokenizer.claim)
    await store_checkpoint(watched.service, tokenizer.run_id, "tokenizer", "tokenizer/t")
    body: dict[str, Any] = {"stage": "base", "config": "debug_cpu", "gpus": 1}
    first, second = begin(watched.service, worker, **body), begin(watched.service, worker, **body)
    hot = {"index": first.claim["gpus"][0], "name": "x", "memory_used_bytes": 1, "memory_total_bytes": 2}
    worker.beat(gpus=[hot | {"temperature_c": 91}], disk_free_bytes=4 << 30)
    await watched.look()
    assert watched.open_kinds() == ["disk_low", "gpu_hot"]
    assert len(watched.warnings(first.run_id)) == 2 and len(watched.warnings(second.run_id)) == 1
    worker.beat(gpus=[hot | {"temperature_c": 80}], disk_free_bytes=40 << 30)
    await watched.look()
    assert watched.open_kinds() == [] and len(watched.alerts()) == 2


async def test_a_worker_that_is_silent_is_missed_once_and_not_for_ever(watched: Watched) -> None:
    worker = FakeWorker(watched.service)
    await silent_for(watched.db, worker.id, 90)
    await watched.look(30)
    assert watched.open_kinds() == []  # the server has not listened for long enough
    await watched.look(30)
    await watched.look(30)
    assert [(a["kind"], a["worker_id"]) for a in watched.alerts()] == [("worker_lost", worker.id)]
    worker.beat()
    await watched.look()
    assert watched.open_kinds() == []
    await silent_for(watched.db, worker.id, 25 * 3600)
    await watched.look()
    assert watched.open_kinds() == []


async def silent_for(db: Database, worker_id: str, seconds: float) -> None:
    async with db.write() as session:
        seen = now() - timedelta(seconds=seconds)
        await session.execute(update(Worker).where(Worker.id == worker_id).values(seen_at=seen))


@sqlite_only
async def test_alerts_go_page_by_page_and_with_their_run(watched: Watched) -> None:
    worker = FakeWorker(watched.service, slots=9)
    shippings = [begin(watched.service, worker, max_restarts=0) for _ in range(3)]
    for shipping in shippings:
        shipping.events(metric(1, train__loss=None))
    await watched.look()
    first = watched.service.client.get("/alerts", params={"limit": 2}).json()
    more = watched.service.client.get("/alerts", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert len(first["items"]) == 2 and len(more["items"]) == 1 and more["next_cursor"] is None
    gone = shippings[0]
    gone.worker.finish(gone.claim, "failed", reason="nan_loss")
    assert watched.service.client.delete(f"/runs/{gone.run_id}").status_code == 204
    await watched.look()
    assert len(watched.alerts()) == 2
