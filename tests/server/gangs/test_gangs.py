"""A run over several nodes: all of its workers or none, and one that is gone ends the attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from nanochat_client.types.keys import Scope
from tests.server.fake_worker import FakeWorker, post_run, run_of, until
from tests.server.keys.conftest import key_for as key_for
from tests.services import Service, eventually

TINY = {
    "max_seq_len": 64, "device_batch_size": 2, "total_batch_size": 512, "eval_every": 0, "sample_every": 0,
    "core_metric_every": 0,
}  # fmt: skip
BASE = {"stage": "base", "config": "debug_cpu", "gpus": 4, "nodes": 2, "overrides": TINY}
DONE = {"fence": 0, "outcome": "succeeded"}


class Node(FakeWorker):
    """A worker that others can reach."""

    def __init__(self, service: Service, name: str, address: str, gpus: int = 2) -> None:
        self.address = address
        super().__init__(service, gpus=gpus, slots=1, host_id=name)

    def register(self, live_attempts: list[str] | None = None) -> None:
        gpus = [{"index": i, "name": "Fake 5090", "memory_bytes": 32 << 30} for i in range(self.gpus)]
        body = {
            "host_id": self.host_id, "host": "fake", "name": self.host_id, "slots": self.slots, "gpus": gpus,
            "live_attempts": live_attempts or [], "address": self.address,
        }  # fmt: skip
        answer = self.http.post("/internal/workers", json=body).raise_for_status().json()
        self.id, self.queue = answer["worker_id"], answer["queue"]

    def join(self) -> dict[str, Any]:
        member = self.take_message()
        assert member.startswith("m")
        answer = self.http.post(f"/internal/members/{member}/join", json={"worker_id": self.id})
        return dict(answer.raise_for_status().json())

    def beat_node(self, member: dict[str, Any]) -> dict[str, Any]:
        return dict(
            self.http.post(f"/internal/members/{member['attempt_id']}/beat").raise_for_status().json()
        )

    def finish_node(self, member: dict[str, Any], **body: Any) -> None:
        url = f"/internal/members/{member['attempt_id']}/finish"
        self.http.post(url, json={**DONE, **body}).raise_for_status()

    def log_node(self, member: dict[str, Any], offset: int, data: bytes) -> httpx.Response:
        url = f"/internal/members/{member['attempt_id']}/log"
        return self.http.put(url, params={"offset": offset}, content=data)

    def gather(self, claim: dict[str, Any]) -> str:
        body = {"fence": claim["fence"], "endpoint": "10.0.0.1:5000"}
        url = f"/internal/attempts/{claim['attempt_id']}/gather"
        return str(self.http.post(url, json=body).raise_for_status().json()["go"])

    def waiting(self) -> int:
        with redis.Redis.from_url(self.service.settings.redis_url) as connection:
            return int(Queue(self.queue, connection=connection, serializer=JSONSerializer).count)


@pytest.fixture
def tokenizer(service: Service) -> None:
    """What a base run needs."""
    maker = FakeWorker(service, host_id="maker")
    post_run(service)
    claim = maker.claim()
    maker.events(
        claim,
        {"kind": "checkpoint", "step": 0, "stage": "tokenizer", "path": f"tokenizer/{claim['run_id']}",
         "bytes": 1, "sha256": "0" * 64, "metrics": {}, "model": None, "origin": None},
    ).raise_for_status()  # fmt: skip
    maker.finish(claim)


def started(service: Service, **more: Any) -> tuple[str, Node, Node, dict[str, Any], dict[str, Any]]:
    """A run whose two nodes have joined: its id, node 0, node 1, and what each was granted."""
    second = Node(service, "b", "10.0.0.2")
    run = post_run(service, **{**BASE, **more})
    assert run["blocked"]["code"] == "no_capable_worker" and "2 workers" in run["blocked"]["message"]
    first = Node(service, "a", "10.0.0.1")
    claim = first.claim()
    assert first.gather(claim) == "wait", "not before all are there"
    member = second.join()
    assert second.beat_node(member)["go"] == "wait"
    assert first.gather(claim) == "run"
    assert second.beat_node(member) == {"go": "run", "endpoint": "10.0.0.1:5000", "resume_from": None}
    first.events(claim, {"kind": "phase", "phase": "train", "steps": 9}).raise_for_status()
    return run["id"], first, second, claim, member


@pytest.mark.usefixtures("tokenizer")
def test_all_nodes_start_together_and_each_holds_its_part(service: Service) -> None:
    run_id, first, second, claim, member = started(service)
    assert (claim["nodes"], claim["node"], claim["processes"], len(claim["gpus"])) == (2, 0, 2, 2)
    assert (member["nodes"], member["node"], member["processes"], len(member["gpus"])) == (2, 1, 2, 2)
    assert claim["config"] == member["config"]
    workers = {w["id"]: w for w in service.client.get("/workers").json()["items"]}
    assert workers[first.id]["busy_gpus"] == workers[second.id]["busy_gpus"] == [0, 1]
    assert workers[second.id]["runs"] == [run_id]
    first.finish(claim)
    assert second.beat_node(member)["go"] == "stop"
    run = run_of(service, run_id)
    assert (run["state"], run["nodes"]) == ("succeeded", 2)
    workers = {w["id"]: w for w in service.client.get("/workers").json()["items"]}
    assert workers[second.id]["busy_gpus"] == []


@pytest.mark.usefixtures("tokenizer")
def test_nobody_starts_when_one_is_busy(service: Service) -> None:
    first, second = Node(service, "a", "10.0.0.1"), Node(service, "b", "10.0.0.2")
    post_run(service, stage="base", config="debug_cpu", gpus=2, overrides=TINY)
    taken = eventually(lambda: next((w for w in (first, second) if w.waiting()), None))
    assert taken is not None
    taken.claim()
    run = post_run(service, **BASE)
    blocked = until_blocked(service, run["id"])
    assert blocked["code"] == "no_free_slot" and "1 of the 2" in blocked["message"]
    assert (first if taken is second else second).waiting() == 0


def until_blocked(service: Service, run_id: str) -> dict[str, Any]:
    found = eventually(lambda: run_of(service, run_id)["blocked"])
    assert found is not None
    return dict(found)


@pytest.mark.usefixtures("tokenizer")
def test_a_lost_node_ends_the_attempt_and_the_run_goes_on_with_what_is_there(
    service: Service,
) -> None:
    run_id, first, second, claim, member = started(service, min_nodes=1)
    second.register()  # its worker has restarted: no process of it lives
    assert second.beat_node(member)["go"] == "stop"
    assert first.beat_attempt(claim).json()["broken"] is True
    second.address = ""  # and it is nobody's neighbour any more
    second.register()
    first.finish(claim, "stopped")
    run = until(service, run_id, "queued")
    assert run["reason"] == "lost_worker" and "node 1 was lost" in run["message"]
    again = first.claim()
    assert (again["number"], again["nodes"], again["processes"]) == (2, 1, 2)


@pytest.mark.usefixtures("tokenizer")
def test_without_min_nodes_the_run_waits_for_all_of_them(service: Service) -> None:
    run_id, first, second, claim, _ = started(service)
    second.address = ""
    second.register()
    first.finish(claim, "failed", reason="internal", message="connection reset by peer")
    run = until(service, run_id, "queued")
    assert run["reason"] == "lost_worker"
    assert until_blocked(service, run_id)["code"] == "no_capable_worker"
    second.address = "10.0.0.2"
    second.register()
    assert first.claim()["number"] == 2 and second.join()["number"] == 2


@pytest.mark.usefixtures("tokenizer")
def test_a_node_that_says_why_it_failed_decides_the_reason(service: Service) -> None:
    run_id, first, second, claim, member = started(service)
    second.finish_node(member, outcome="failed", reason="cuda_oom", message="out of memory on GPU 1")
    assert first.beat_attempt(claim).json()["broken"] is True
    first.finish(claim, "failed", reason="nccl_timeout", message="a rank is gone")
    run = run_of(service, run_id)
    assert (run["state"], run["reason"]) == ("failed", "cuda_oom") and "node 1" in run["message"]


def log_of(service: Service, run_id: str) -> str:
    return service.client.get(f"/runs/{run_id}/logs", params={"format": "text"}).text


@pytest.mark.usefixtures("tokenizer")
def test_what_a_further_node_prints_is_lines_of_the_runs_log(service: Service) -> None:
    run_id, first, second, claim, member = started(service)
    said = b"cannot reach 10.0.0.9\n10%\r20%\n"
    assert second.log_node(member, 0, said).json() == {"acked": 30}
    first.log(claim, 0, b"step 1\nstep").raise_for_status()
    assert second.log_node(member, 0, said).json() == {"acked": 30}, "again"
    assert second.log_node(member, 0, said + b"more\n").json() == {"acked": 35}
    first.log(claim, 11, b" 2\n").raise_for_status()
    assert second.log_node(member, 35, b"the last, without an end").json() == {"acked": 59}
    assert log_of(service, run_id) == (
        "[node 1] cannot reach 10.0.0.9\n[node 1] 10%\r[node 1] 20%\nstep 1\nstep\n[node 1] more\n 2\n"
        "[node 1] the last, without an end\n"
    )
    gap = second.log_node(member, 60, b"x\n")
    assert (gap.status_code, gap.json()["code"], gap.json()["errors"][0]["nearest"]) == (
        409,
        "offset_gap",
        59,
    )
    assert second.log_node(member, 59, b"x" * (1024 * 1024 + 1)).status_code == 413


@pytest.mark.usefixtures("tokenizer")
def test_a_node_of_an_ended_attempt_adds_nothing(service: Service) -> None:
    run_id, first, second, claim, member = started(service)
    before = log_of(service, run_id)
    first.finish(claim)
    late = second.log_node(member, 0, b"late\n")
    assert (late.status_code, late.json()["code"]) == (409, "stale_fence")
    assert log_of(service, run_id) == before


@pytest.mark.usefixtures("tokenizer")
def test_no_other_worker_speaks_for_a_node(service: Service, key_for: Callable[..., str]) -> None:
    _, _, second, _, member = started(service)
    url = f"/internal/members/{member['attempt_id']}"
    headers = {"authorization": f"Bearer {key_for(Scope.WORKER)}"}
    with httpx.Client(base_url=service.base_url, headers=headers) as other:
        answers = [
            other.post(f"{url}/join", json={"worker_id": second.id}),
            other.post(f"{url}/beat"),
            other.post(f"{url}/finish", json=DONE),
            other.put(f"{url}/log", params={"offset": 0}, content=b"lies\n"),
        ]
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(403, "foreign_worker")}


@pytest.mark.usefixtures("tokenizer")
def test_a_silent_node_is_lost_when_its_lease_is_over(service: Service) -> None:
    _, first, _, claim, _ = started(service)
    assert eventually(lambda: first.beat_attempt(claim).json()["broken"], 15)


@pytest.mark.parametrize(
    ("body", "nearest"),
    [
        ({"stage": "tokenizer", "nodes": 2}, 1),
        ({**BASE, "nodes": 3}, 2),
        ({"stage": "base", "config": "debug_cpu", "gpus": 0, "nodes": 3}, 2),
    ],
)
def test_a_run_that_cannot_be_divided_is_refused(
    service: Service, body: dict[str, Any], nearest: int
) -> None:
    answer = service.client.post("/runs", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/nodes"
    assert answer.json()["errors"][0]["nearest"] == nearest
