"""Webhooks: everything that happened arrives, signed, at the address that was checked and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from server.db import Database
from server.ids import new_id
from server.models import Webhook, WebhookDelivery, now
from server.redact import redact
from server.settings import Settings
from server.webhooks import courier, repository
from tests.server.fake_worker import FakeWorker, post_run, until
from tests.server.webhooks.receiver import Receiver, receiver
from tests.services import Service, eventually

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def inbox() -> Iterator[Receiver]:
    with receiver() as noted:
        yield noted


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_networks": "127.0.0.0/8"})


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "EVERY_S", 0.05)
    monkeypatch.setattr(courier, "BACKOFF_S", (0.05, 0.05))


def hook(service: Service, url: str, **body: Any) -> dict[str, Any]:
    answer = service.client.post("/webhooks", json={"url": url, **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def deliveries(service: Service, webhook: dict[str, Any]) -> list[dict[str, Any]]:
    return list(service.client.get(f"/webhooks/{webhook['id']}/deliveries").json()["items"])


def is_signed(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As a receiver checks it, written from the specification and not with our code."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(secret.split("_", 1)[1]), signed, hashlib.sha256).digest()
    expected = f"v1,{base64.b64encode(digest).decode()}"
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 60
    return fresh and hmac.compare_digest(expected, headers["webhook-signature"])


def test_every_state_of_a_run_arrives_in_order_and_signed(service: Service, inbox: Receiver) -> None:
    made = hook(service, inbox.url, name="ops")
    worker = FakeWorker(service)
    run = post_run(service, tags=["mine"])
    claim = worker.claim()
    worker.events(claim, {"kind": "phase", "phase": "train", "steps": 5})
    worker.finish(claim)
    states = ["run.queued", "run.starting", "run.running", "run.succeeded"]
    eventually(lambda: len(inbox.got) == 4)
    assert inbox.types() == states
    for headers, body, path in inbox.got:
        assert path == "/hook" and headers["content-type"] == "application/json"
        assert is_signed(made["secret"], headers, body)
        assert not is_signed(made["secret"], headers, body + b" ")
    last = inbox.bodies()[-1]
    assert (
        last["data"]["id"] == run["id"] and last["data"]["tags"] == ["mine"] and "config" not in last["data"]
    )
    assert len({headers["webhook-id"] for headers, _, _ in inbox.got}) == 4
    eventually(lambda: {d["state"] for d in deliveries(service, made)} == {"delivered"})
    [listed] = service.client.get("/webhooks").json()["items"]
    assert (listed["pending"], listed["last_status"], listed["last_error"]) == (0, 204, None)
    assert "secret" not in listed and made["secret"] not in service.client.get("/webhooks").text


def test_a_failed_try_is_repeated_with_the_same_id_and_in_the_end_given_up(
    service: Service, inbox: Receiver
) -> None:
    inbox.answers = [500, 302]
    made = hook(service, inbox.url, events=["run.queued"])
    post_run(service)
    eventually(lambda: [d["state"] for d in deliveries(service, made)] == ["delivered"])
    assert [path for _, _, path in inbox.got] == ["/hook"] * 3  # the redirect was not followed
    assert len({headers["webhook-id"] for headers, _, _ in inbox.got}) == 1
    assert all(is_signed(made["secret"], headers, body) for headers, body, _ in inbox.got)
    inbox.answers = [500] * 9
    post_run(service)
    eventually(lambda: "failed" in [d["state"] for d in deliveries(service, made)])
    failed = deliveries(service, made)[0]
    assert (failed["tries"], failed["status"], failed["error"]) == (3, 500, "the receiver answered 500")


@sqlite_only
def test_a_receiver_that_hangs_holds_up_nobody_else(
    service: Service, inbox: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as other:
        inbox.hang.set()
        hook(service, inbox.url, events=["run.*"])
        hook(service, other.url, events=["run.*"])
        for _ in range(3):
            post_run(service)
        eventually(lambda: len(other.got) == 3)
        assert len(inbox.got) == 1
        inbox.hang.clear()
        inbox.go.set()
        eventually(lambda: len(inbox.got) == 3)


@sqlite_only
def test_too_slow_is_a_try_that_failed(
    service: Service, inbox: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "TIMEOUT_S", 0.1)
    inbox.hang.set()
    made = hook(service, inbox.url, events=["run.queued"])
    post_run(service)
    eventually(lambda: [d["state"] for d in deliveries(service, made)] == ["failed"])
    assert deliveries(service, made)[0]["error"] == "no answer within 0.1 s"


@sqlite_only
def test_only_what_was_asked_for_is_told_and_nothing_after_it_is_deleted(
    service: Service, inbox: Receiver
) -> None:
    made = hook(service, inbox.url, events=["run.cancelled"])
    run = post_run(service)
    service.client.post(f"/runs/{run['id']}/cancel")
    eventually(lambda: inbox.types() == ["run.cancelled"])
    assert service.client.post(f"/webhooks/{made['id']}/ping").status_code == 202
    eventually(lambda: inbox.types() == ["run.cancelled", "ping"])
    assert service.client.delete(f"/webhooks/{made['id']}").status_code == 204
    for path in (f"/webhooks/{made['id']}/deliveries", "/webhooks/none/deliveries"):
        assert service.client.get(path).status_code == 404
    assert service.client.delete(f"/webhooks/{made['id']}").status_code == 404
    again = post_run(service)
    service.client.post(f"/runs/{again['id']}/cancel")
    until(service, again["id"], "cancelled")
    assert len(inbox.got) == 2


@sqlite_only
def test_the_secret_of_a_webhook_is_in_no_log(
    service: Service, inbox: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    inbox.answers = [500]
    made = hook(service, f"{inbox.url}?token=of-the-receiver", events=["run.queued"])
    post_run(service)
    eventually(lambda: [d["state"] for d in deliveries(service, made)] == ["delivered"])
    said = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("server"))
    assert "answered 500" in said and made["secret"] not in said and "of-the-receiver" not in said
    assert made["secret"] not in redact(f"created {made['secret']}")


@sqlite_only
def test_the_same_post_twice_makes_one_webhook(service: Service, inbox: Receiver) -> None:
    body, headers = {"url": inbox.url}, {"idempotency-key": "k1"}
    first, second = (service.client.post("/webhooks", json=body, headers=headers).json() for _ in range(2))
    assert first == second and len(service.client.get("/webhooks").json()["items"]) == 1


@sqlite_only
@pytest.mark.parametrize(
    "body",
    [
        {"url": "ftp://example.org/"},
        {"url": "http://"},
        {"url": "javascript:alert(1)"},
        {"url": "http://user:" + "pw@example.org/"},
        {"url": "https://example.org/", "events": ["run.exploded"]},
        {"url": "https://example.org/", "events": []},
        {"url": "https://example.org/", "secret": "mine"},
        {"url": "https://example.org/", "name": "a\0b"},
        {"url": "http://10.0.0.1/"},
        {"url": "http://169.254.169.254/latest/meta-data/"},
    ],
)
def test_what_is_no_webhook_is_refused(service: Service, body: dict[str, Any]) -> None:
    answer = service.client.post("/webhooks", json=body)
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"]
    assert service.client.get("/webhooks").json()["items"] == []


@pytest.mark.parametrize("settings", [None], indirect=False, ids=["default settings"])
@sqlite_only
def test_without_the_setting_nothing_goes_to_this_machine(
    settings: None, tmp_path: Any, database_url: str, redis_url: str, inbox: Receiver
) -> None:
    """Also when the address was fine when the webhook was made."""
    del settings
    running = Service(Settings(base_dir=tmp_path, database_url=database_url, redis_url=redis_url)).start()
    try:
        refused = running.client.post("/webhooks", json={"url": inbox.url})
        assert refused.status_code == 422 and "NANOCHAT_WEBHOOK_NETWORKS" in refused.text
        made = {"id": plant(running.settings, inbox.url)}
        post_run(running)
        eventually(lambda: [d["state"] for d in deliveries(running, made)] == ["failed"])
        assert "no address of the internet" in deliveries(running, made)[0]["error"]
        assert inbox.got == []
    finally:
        running.stop()


def plant(settings: Settings, url: str) -> str:
    """A webhook in the database, whoever put it there."""
    from sqlalchemy import insert

    from server import migrate

    engine = migrate.sync_engine(settings.sqlalchemy_url)
    with engine.begin() as connection:
        values = {"id": "hplanted", "url": url, "name": "", "events": ["run.*"], "secret": "whsec_AAAA"}
        connection.execute(insert(Webhook), values | {"created_at": now()})
    engine.dispose()
    return "hplanted"


async def test_the_record_of_deliveries_stays_small(settings: Settings) -> None:
    db = Database(settings.sqlalchemy_url)
    try:
        async with db.write() as session:
            session.add(Webhook(id="h1", url="https://example.org", events=["run.*"], secret="whsec_AAAA"))
            await session.flush()
            for number in range(30):
                at = now() - timedelta(minutes=30 - number)
                state = "pending" if number % 3 == 0 else "delivered"
                session.add(
                    WebhookDelivery(
                        id=new_id("m"), webhook_id="h1", type="ping", payload={}, state=state,
                        created_at=at, next_at=at, ended_at=None if state == "pending" else at,
                    )
                )  # fmt: skip
        async with db.write() as session:
            await repository.sweep(session, keep=8, waiting=4, before=now() - timedelta(minutes=25))
        async with db.read() as session:
            rows = await repository.deliveries(session, "h1", 100)
            states = [row.state for row in rows]
            assert states.count("pending") == 4
            assert states.count("failed") == 6 and states.count("delivered") == 8
            assert all(re.search("more than 4", r.error or "") for r in rows if r.state == "failed")
        async with db.write() as session:
            await repository.sweep(session, keep=8, waiting=4, before=now() - timedelta(minutes=25))
        async with db.read() as session:
            assert len(await repository.deliveries(session, "h1", 100)) == 4 + 8
    finally:
        await db.close()
