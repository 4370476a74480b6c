"""Claims, fences, ends and losses of attempts, as a worker sees them over HTTP."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import pytest

from tests.server.fake_worker import FakeWorker, post_run, run_of, store_checkpoint, until
from tests.services import Service, eventually

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def attempts(service: Service, run_id: str) -> list[dict[str, Any]]:
    return list(service.client.get(f"/runs/{run_id}/attempts").json()["items"])


def test_of_twenty_claims_at_once_exactly_one_is_granted(service: Service) -> None:
    worker = FakeWorker(service, slots=32)
    other = FakeWorker(service, slots=32, host_id="host-b")
    post_run(service)
    attempt_id = eventually(lambda: worker.messages() or other.messages())[0]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        racers = [worker, other] * 10
        answers = list(pool.map(lambda racer: racer.try_claim(attempt_id), racers))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    assert {a.json()["code"] for a in answers if a.status_code == 409} == {"not_claimable"}


def test_claims_at_once_never_share_a_gpu(service: Service) -> None:
    worker = FakeWorker(service, gpus=3, slots=8)
    for _ in range(3):
        post_run(service, stage="base", overrides={"tokenizer": "t"}, gpus=1)
    waiting = eventually(lambda: found if len(found := worker.messages()) == 3 else None)
    assert waiting is not None
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        claims = [answer.json() for answer in pool.map(worker.try_claim, waiting)]
    assert sorted(gpu for claim in claims for gpu in claim["gpus"]) == [0, 1, 2]
    view = service.client.get("/workers").json()["items"][0]
    assert view["busy_gpus"] == [0, 1, 2] and len(view["runs"]) == 3
    for claim in claims:
        worker.finish(claim)
    assert service.client.get("/workers").json()["items"][0]["busy_gpus"] == []


def test_a_stale_fence_is_refused_everywhere(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    claim = worker.claim()
    stale = {**claim, "fence": claim["fence"] - 1}
    for answer in (worker.beat_attempt(stale), worker.finish(stale)):
        assert answer.status_code == 409 and answer.json()["code"] == "stale_fence"
    assert run_of(service, run["id"])["state"] == "starting"


def test_a_finish_that_is_repeated_answers_the_same(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    claim = worker.claim()
    assert worker.finish(claim, peak_bytes=7).json() == {"state": "succeeded"}
    assert worker.finish(claim, "failed", reason="internal").json() == {"state": "succeeded"}
    ended = run_of(service, run["id"])
    assert ended["state"] == "succeeded" and ended["peak_bytes"] == 7 and ended["reason"] is None
    assert worker.beat_attempt(claim).status_code == 409


def test_a_failure_keeps_its_reason_exit_code_and_last_lines(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    claim = worker.claim()
    tail = [f"line {i}\0" for i in range(200)]
    worker.finish(claim, "failed", reason="cuda_oom", message="out of\0 memory", exit_code=1, tail=tail)
    ended = run_of(service, run["id"])
    assert (ended["state"], ended["reason"], ended["exit_code"]) == ("failed", "cuda_oom", 1)
    assert ended["message"] == "out of memory"
    [attempt] = attempts(service, run["id"])
    assert (attempt["state"], attempt["reason"], len(attempt["tail"])) == ("failed", "cuda_oom", 200)
    too_long = worker.finish(claim, "failed", tail=["x"] * 201)
    assert too_long.status_code == 422


def test_a_retryable_failure_goes_on_until_no_restart_is_left(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service, max_restarts=1)
    first = worker.claim()
    assert worker.finish(first, "failed", reason="killed_signal", signal=9).json() == {"state": "queued"}
    second = worker.claim()
    assert second["number"] == 2 and second["attempt_id"] != first["attempt_id"]
    assert worker.finish(second, "failed", reason="killed_signal", signal=9).json() == {"state": "failed"}
    ended = run_of(service, run["id"])
    assert ended["reason"] == "killed_signal" and ended["signal"] == 9 and ended["attempt"] == 2


def test_a_worker_that_restarts_proves_the_death_of_what_it_does_not_list(service: Service) -> None:
    worker = FakeWorker(service)
    dead, alive = post_run(service), post_run(service)
    claims = {claim["run_id"]: claim for claim in (worker.claim(), worker.claim())}
    worker.register(live_attempts=[claims[alive["id"]]["attempt_id"]])
    assert run_of(service, alive["id"])["state"] == "starting"
    [lost, *_] = attempts(service, dead["id"])
    assert lost["state"] == "lost" and lost["reason"] == "lost_worker"
    # no lease had to run out: the dead one is on its way again, the living one is adopted
    assert worker.claim()["run_id"] == dead["id"]
    old = claims[alive["id"]]
    adopted = worker.try_claim(old["attempt_id"]).json()
    assert adopted["fence"] == old["fence"] + 1 and adopted["number"] == old["number"]
    assert worker.beat_attempt(old).json()["code"] == "stale_fence"
    assert worker.beat_attempt(adopted).status_code == 200
    assert worker.try_claim(old["attempt_id"]).status_code == 409  # once per restart


def test_a_silent_worker_loses_its_run_when_the_lease_ends(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service, max_restarts=0)
    claim = worker.claim()
    ended = until(service, run["id"], "failed", timeout_s=15)
    assert ended["reason"] == "lost_worker" and "silent" in ended["message"]
    assert worker.beat_attempt(claim).json()["code"] == "stale_fence"


@sqlite_only
def test_a_lost_run_goes_where_its_user_wanted_it(service: Service) -> None:
    for verb, state in (("cancel", "cancelled"), ("pause", "paused")):
        worker = FakeWorker(service)
        run = post_run(service)
        worker.claim()
        service.client.post(f"/runs/{run['id']}/{verb}")
        worker.register()
        assert run_of(service, run["id"])["state"] == state


@sqlite_only
def test_a_message_that_got_lost_is_sent_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from server.workers import dispatch

    monkeypatch.setattr(dispatch, "UNCLAIMED_S", 0.5)
    worker = FakeWorker(service)
    run = post_run(service)
    lost = worker.take_message()
    assert worker.take_message() == lost
    assert worker.try_claim(lost).json()["run_id"] == run["id"]


def test_a_message_that_died_with_its_worker_is_sent_again_when_the_worker_returns(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    lost = worker.take_message()
    worker.register()
    assert worker.take_message() == lost
    assert worker.try_claim(lost).json()["run_id"] == run["id"]


@sqlite_only
def test_a_missing_checkpoint_of_a_parent_blocks_and_is_filled_in_at_the_claim(service: Service) -> None:
    worker = FakeWorker(service)
    parent = post_run(service)
    child = post_run(
        service, stage="base", config="debug_cpu", parent=parent["id"], checkpoint="best:val/bpb"
    )
    worker.finish(worker.claim())
    blocked = eventually(lambda: run_of(service, child["id"])["blocked"])
    assert blocked["code"] == "missing_input" and "best:val/bpb" in blocked["message"]


async def test_inputs_come_from_the_parent_else_from_the_newest(service: Service) -> None:
    worker = FakeWorker(service)
    parent, newest = post_run(service), post_run(service)
    for run in (parent, newest):
        worker.finish(worker.claim())
        await store_checkpoint(service, run["id"], "tokenizer", f"tokenizer/{run['id']}")
    child = post_run(service, stage="base", config="debug_cpu", parent=parent["id"])
    orphan = post_run(service, stage="base", config="debug_cpu")
    claims = {claim["run_id"]: claim for claim in (worker.claim(), worker.claim())}
    assert claims[child["id"]]["config"]["tokenizer"] == f"tokenizer/{parent['id']}"
    assert claims[orphan["id"]]["config"]["tokenizer"] == f"tokenizer/{newest['id']}"
    assert claims[child["id"]]["processes"] == 2 and claims[child["id"]]["gpus"] == []


@sqlite_only
def test_the_internal_routes_need_the_worker_token(service: Service) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic x"}):
        for path in ("/internal/workers", "/internal/workers/w1/beat", "/internal/attempts/a1/claim",
                     "/internal/attempts/a1/beat", "/internal/attempts/a1/finish"):  # fmt: skip
            answer = service.client.post(path, json={}, headers=headers)
            assert answer.status_code == 401, path
            assert answer.json()["code"] == "unauthorized"


@sqlite_only
def test_an_unknown_worker_is_told_to_register(service: Service) -> None:
    worker = FakeWorker(service)
    assert worker.beat().status_code == 204
    worker.id = "w0"
    assert worker.beat().status_code == 404 and worker.beat().json()["code"] == "unknown_worker"
