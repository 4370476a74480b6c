"""When a run goes on by itself, where, and when it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.fake_worker import FakeWorker, post_run, run_of, until
from tests.services import Service, eventually

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def crash(worker: FakeWorker, claim: dict[str, Any]) -> str:
    answer = worker.finish(claim, "failed", reason="killed_signal", signal=9, seconds=5.0)
    return str(answer.json()["state"])


def checkpoint(worker: FakeWorker, claim: dict[str, Any], step: int) -> None:
    event = {"kind": "checkpoint", "step": step, "path": f"x/{step}", "sha256": "0" * 64, "bytes": 1}
    assert worker.events(claim, event).status_code == 200


def beat(worker: FakeWorker, claim: dict[str, Any], **body: Any) -> Any:
    path = f"/internal/attempts/{claim['attempt_id']}/beat"
    return worker.http.post(path, json={"fence": claim["fence"], **body}).json()


def test_two_crashes_without_a_new_checkpoint_in_between_are_a_crash_loop(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service, max_restarts=10)
    assert crash(worker, worker.claim()) == "queued"
    second = worker.claim()
    checkpoint(worker, second, 20)  # it got further: this one does not count
    assert crash(worker, second) == "queued"
    third = worker.claim()
    checkpoint(worker, third, 20)  # told again when it resumed
    assert crash(worker, third) == "failed"
    ended = run_of(service, run["id"])
    assert ended["reason"] == "crash_loop" and "without a new checkpoint" in ended["message"]


@sqlite_only
def test_a_lost_worker_is_no_crash_of_the_run(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service, max_restarts=10)
    for _ in range(3):
        worker.claim()
        worker.register()
    assert run_of(service, run["id"])["state"] == "queued"


def test_a_run_works_no_longer_than_it_may_over_all_attempts(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service, max_duration_s=60)
    first = worker.claim()
    assert first["seconds_left"] == 60
    beat(worker, first, seconds=30.0)
    worker.register()  # the worker died: what its last beat said is what is known
    second = worker.claim()
    assert second["seconds_left"] == 30
    worker.finish(second, "failed", reason="timeout", message="30 seconds", seconds=30.0)
    ended = run_of(service, run["id"])
    assert (ended["state"], ended["reason"], ended["max_duration_s"]) == ("failed", "timeout", 60)
    shown = service.client.get(f"/runs/{run['id']}/attempts").json()["items"]
    assert [attempt["seconds"] for attempt in shown] == [30, 30]
    assert all(attempt["fence"] == 1 and attempt["renewed_at"] for attempt in shown)


def test_a_run_is_movable_once_its_worker_says_that_it_knows(service: Service) -> None:
    worker = FakeWorker(service)
    post_run(service)
    claim = worker.claim()
    assert beat(worker, claim)["movable"] is False  # there is nowhere to go
    FakeWorker(service, host_id="host-b")
    assert beat(worker, claim, movable=False)["movable"] is True
    eventually(lambda: beat(worker, claim, movable=True)["movable"])


def test_a_movable_run_goes_on_elsewhere_when_its_worker_falls_silent(service: Service) -> None:
    worker, other = FakeWorker(service), FakeWorker(service, host_id="host-b")
    run = post_run(service)
    claim = eventually(lambda: next((w for w in (worker, other) if w.messages()), None))
    first = claim.claim()
    second = other if claim is worker else worker
    for _ in range(2):
        beat(claim, first, movable=True)
    until(service, run["id"], "queued", timeout_s=15)
    found = eventually(lambda: second.messages() if second.beat() else None, 15)
    assert second.try_claim(found[-1]).json()["fence"] == 1
    assert beat(claim, first)["code"] == "stale_fence"


@sqlite_only
def test_a_run_that_may_still_be_trained_on_a_silent_host_starts_nowhere_else(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    worker.claim()
    until(service, run["id"], "queued", timeout_s=15)
    other = FakeWorker(service, host_id="host-b")  # it came later: the first was never told of it

    def waits() -> bool:
        other.beat()
        blocked = run_of(service, run["id"])["blocked"]
        return bool(blocked) and "fell silent" in blocked["message"]

    eventually(waits, 20)  # once the first worker counts as gone
    assert other.messages() == []
    worker.register()  # it is back, and proves that nothing of it lives
    eventually(lambda: worker.messages() or other.messages(), 15)


def test_what_a_dead_trainer_had_written_is_taken_until_the_run_is_claimed_again(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    claim = worker.claim()
    worker.register()  # its worker was killed: the attempt is lost, its files are still on disk
    path = f"/internal/attempts/{claim['attempt_id']}"
    late = {"offset": 0, "fence": claim["fence"]}
    assert worker.http.put(f"{path}/log", params=late, content=b"late\n").status_code == 200
    line = json.dumps({"t": 1.0, "kind": "warning", "message": "late"}) + "\n"
    assert worker.http.post(f"{path}/events", params=late, content=line.encode()).status_code == 200
    text = service.client.get(f"/runs/{run['id']}/logs", params={"format": "text"}).text
    assert text == "late\n"
    worker.claim()
    refused = worker.http.put(f"{path}/log", params={**late, "offset": 5}, content=b"too late\n")
    assert refused.json()["code"] == "stale_fence"
