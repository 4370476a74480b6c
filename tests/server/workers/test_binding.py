"""A worker's key is for its own attempts: knowing another one's fence opens nothing."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import update

from nanochat_client.types.keys import Scope
from server import migrate
from server.keys import local
from server.models import Worker, now
from tests.server.fake_worker import FakeWorker, post_run, run_of
from tests.server.keys.conftest import key_for as key_for
from tests.services import Service


@pytest.fixture
def host(service: Service, key_for: Callable[..., str]) -> Callable[[str], FakeWorker]:
    """A worker with a key of its own."""

    def make(host_id: str) -> FakeWorker:
        key = key_for(Scope.WORKER)
        worker = FakeWorker.__new__(FakeWorker)
        worker.service, worker.host_id, worker.gpus, worker.slots = service, host_id, 0, 2
        headers = {"authorization": f"Bearer {key}"}
        worker.http = httpx.Client(base_url=service.base_url, timeout=30, headers=headers)
        worker.key = key  # type: ignore[attr-defined]
        return worker

    return make


def refused(answer: httpx.Response) -> bool:
    return answer.status_code == 403 and answer.json()["code"] == "foreign_worker"


def test_a_key_of_another_host_reads_and_writes_nothing_of_an_attempt(
    service: Service, host: Callable[[str], FakeWorker]
) -> None:
    admin = httpx.Client(base_url=service.base_url, headers={"authorization": f"Bearer {user(service)}"})
    service.client = admin
    mine, other = host("host-a"), host("host-b")
    mine.register()
    run = post_run(service)
    claim = mine.claim()
    other.register()
    for caller in (other.http, service.internal):  # another key, and the token that all others share
        stranger = FakeWorker.__new__(FakeWorker)
        stranger.service, stranger.http, stranger.id = service, caller, mine.id
        assert refused(stranger.beat()) and refused(stranger.try_claim(claim["attempt_id"]))
        for fence in range(4):
            guess = claim | {"fence": fence}
            assert refused(stranger.beat_attempt(guess))
            assert refused(stranger.finish(guess, "failed", reason="internal"))
            assert refused(stranger.events(guess, {"kind": "phase", "phase": "train"}))
            log = f"/internal/attempts/{claim['attempt_id']}/log"
            assert refused(caller.put(log, params={"offset": 0, "fence": fence}, content=b"lies"))
            heir = {"offset": 0, "fence": fence, "heir": claim["attempt_id"]}
            assert refused(caller.put(log, params=heir, content=b"lies"))
    assert run_of(service, run["id"])["state"] == "starting"
    assert mine.beat().status_code == 204 and mine.beat_attempt(claim).status_code == 200
    assert mine.events(claim, {"kind": "phase", "phase": "train"}).status_code == 200
    assert mine.finish(claim).status_code == 200
    assert run_of(service, run["id"])["state"] == "succeeded"


def test_a_host_changes_hands_only_when_its_key_is_gone(
    service: Service, host: Callable[[str], FakeWorker]
) -> None:
    first, second = host("host-a"), host("host-a")
    first.register()
    with pytest.raises(httpx.HTTPStatusError) as taken:
        second.register()
    assert taken.value.response.status_code == 409
    assert taken.value.response.json()["code"] == "foreign_worker"
    local.revoke(service.settings, first.key.split("_")[1])  # type: ignore[attr-defined]
    second.register()
    assert second.beat().status_code == 204
    assert first.beat().status_code in (401, 403)  # a revoked key is known here for two seconds more


def test_a_key_takes_over_from_the_token_when_the_worker_has_gone(
    service: Service, host: Callable[[str], FakeWorker]
) -> None:
    FakeWorker(service, host_id="host-a")
    later = host("host-a")
    with pytest.raises(httpx.HTTPStatusError):
        later.register()
    with migrate.sync_engine(service.settings.sqlalchemy_url).begin() as connection:
        connection.execute(update(Worker).values(seen_at=now().replace(year=2020)))
    later.register()
    FakeWorker(service, host_id="host-a")  # who has the token may take it back


def user(service: Service) -> str:
    """There are keys, so users need one as well."""
    from nanochat_client.types.keys import KeyCreate

    return local.create(service.settings, KeyCreate(name="user", scopes=[Scope.ADMIN]))
