"""POST /runs: what is stored, what is refused and where the refusal points."""

from __future__ import annotations

import base64
import concurrent.futures
from typing import Any

import pytest

from tests.server.fake_worker import FakeWorker, post_run, run_of, until
from tests.services import Service, eventually

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_a_run_is_stored_with_its_resolved_config_and_says_why_it_waits(service: Service) -> None:
    answer = service.client.post(
        "/runs", json={"stage": "base", "config": "debug_cpu", "name": "first", "tags": ["a b"]}
    )
    assert answer.status_code == 201, answer.text
    run = answer.json()
    assert answer.headers["location"] == f"/runs/{run['id']}"
    assert answer.headers["etag"] == f'"{run["version"]}"'
    assert run["state"] == "queued" and run["blocked"]["code"] == "no_worker"
    assert (run["gpus"], run["preset"], run["name"]) == (0, "debug_cpu", "first")
    assert run["config"]["depth"] == 2 and run["config"]["processes"] == 2
    assert run["config"]["embedding_lr"] == 0.2 and run["config"]["run"] == "first"
    assert run_of(service, run["id"]) == run


def test_two_gpus_where_there_are_none_wait_and_start_when_a_worker_brings_them(service: Service) -> None:
    FakeWorker(service, gpus=0)
    run = post_run(service, stage="base", config="stable_26gb", overrides={"tokenizer": "tokenizer/mine"})
    assert run["state"] == "queued" and run["gpus"] == 2
    blocked = run["blocked"]
    assert blocked["code"] == "no_capable_worker" and blocked["preset"] == "debug_cpu"
    assert blocked["asked"]["gpus"] == 2 and blocked["offered"][0]["gpus"] == 0
    assert "debug_cpu" in blocked["message"]

    big = FakeWorker(service, gpus=2, host_id="host-big")
    claim = big.claim()
    assert claim["run_id"] == run["id"]
    assert claim["gpus"] == [0, 1] and claim["processes"] == 2
    assert claim["config"]["resume_from"] == "auto" and claim["config"]["tokenizer"] == "tokenizer/mine"
    started = run_of(service, run["id"])
    assert started["state"] == "starting" and started["blocked"] is None


@sqlite_only
def test_a_missing_tokenizer_is_accepted_and_said(service: Service) -> None:
    FakeWorker(service)
    run = post_run(service, stage="base", config="debug_cpu")
    assert run["blocked"]["code"] == "missing_input"
    assert "tokenizer" in run["blocked"]["message"]


BAD: list[tuple[dict[str, Any], str, Any]] = [
    ({"stage": "bass"}, "/stage", "base"),
    ({"stage": "base", "config": "stable_26"}, "/config", "stable_26gb"),
    ({"stage": "sft", "config": "debug_cpu"}, "/config", None),
    ({"stage": "base", "overrides": {"dept": 4}}, "/overrides/dept", "depth"),
    ({"stage": "base", "overrides": {"depth": "4"}}, "/overrides/depth", None),
    ({"stage": "base", "overrides": {"depth": -1}}, "/overrides/depth", 1),
    ({"stage": "base", "overrides": {"depth": True}}, "/overrides/depth", None),
    ({"stage": "base", "config": "debug_cpu", "overrides": {"total_batch_size": 3000}},
     "/overrides/total_batch_size", 2048),
    ({"stage": "base", "config": "stable_26gb", "overrides": {"total_batch_size": 100_000}},
     "/overrides/total_batch_size", 110_592),
    ({"stage": "base", "overrides": {"depth": 13}}, "/overrides/depth", 14),
    ({"stage": "base", "config": "balanced", "overrides": {"eval_tokens": 49_151}},
     "/overrides/eval_tokens", 49_152),
    ({"stage": "base", "overrides": {"data": "a\0b"}}, "/overrides/data", None),
    ({"stage": "base", "gpus": 99}, "/gpus", 64),
    ({"stage": "tokenizer", "gpus": 1}, "/gpus", 0),
    ({"stage": "base", "config": "debug_cpu", "overrides": {"device": "cpu"}, "gpus": 1}, "/gpus", 0),
    ({"stage": "sft", "parent": "r0000000000"}, "/parent", None),
    ({"stage": "sft", "checkpoint": "step:4"}, "/checkpoint", "last"),
    ({"stage": "tokenizer", "tags": ["ok", ""]}, "/tags/1", None),
    ({"stage": "tokenizer", "name": "../x"}, "/name", None),
    ({"stage": "tokenizer", "colour": 1}, "/colour", None),
    ({"config": "debug_cpu"}, "/stage", None),
]  # fmt: skip


@sqlite_only
def test_bad_input_is_a_problem_that_points_into_the_body_and_stores_nothing(service: Service) -> None:
    for body, pointer, nearest in BAD:
        answer = service.client.post("/runs", json=body)
        assert answer.status_code == 422, (body, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        document = answer.json()
        item = next((e for e in document["errors"] if e["pointer"] == pointer), None)
        assert item is not None, (body, document)
        assert item["nearest"] == nearest, (body, item)
        assert document["request_id"] == answer.headers["x-request-id"]
    assert service.client.get("/runs").json()["items"] == []


def test_what_no_database_holds_is_refused_not_stored(service: Service) -> None:
    nested = "[" * 400 + "]" * 400
    for name, text in (
        ("target_flops", "NaN"), ("target_flops", "Infinity"), ("target_flops", "1e999"),
        ("total_batch_size", "1" + "0" * 400 + "1"), ("max_chars", "9223372036854775808"),
        ("data", r'"a\ud800b"'), (r"a\ud800b", "1"), (r"a\u0000b", "1"), ("data", nested),
    ):  # fmt: skip
        answer = service.client.post(
            "/runs",
            content=f'{{"stage":"base","overrides":{{"{name}":{text}}}}}',
            headers={"content-type": "application/json"},
        )
        assert answer.status_code in (400, 422), (name, answer.text)


def test_the_same_idempotency_key_creates_once(service: Service) -> None:
    headers = {"idempotency-key": "k1"}
    body = {"stage": "tokenizer", "name": "once"}
    first = service.client.post("/runs", json=body, headers=headers)
    again = service.client.post("/runs", json=body, headers=headers)
    other = service.client.post("/runs", json={"stage": "tokenizer", "name": "twice"}, headers=headers)
    assert first.status_code == again.status_code == 201
    assert first.json()["id"] == again.json()["id"]
    assert first.headers["location"] == again.headers["location"]
    assert other.status_code == 409 and other.json()["code"] == "idempotency_conflict"
    assert len(service.client.get("/runs").json()["items"]) == 1


def test_of_eight_posts_at_once_with_one_key_one_creates(service: Service) -> None:
    def post(_: int) -> tuple[int, str]:
        answer = service.client.post("/runs", json={"stage": "tokenizer"}, headers={"idempotency-key": "k"})
        return answer.status_code, str(answer.json().get("id"))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(post, range(8)))
    assert len(answers) == 1 and answers.pop()[0] == 201
    assert len(service.client.get("/runs").json()["items"]) == 1


def test_a_refused_request_does_not_use_up_its_idempotency_key(service: Service) -> None:
    headers = {"idempotency-key": "k2"}
    bad = service.client.post("/runs", json={"stage": "bass"}, headers=headers)
    good = service.client.post("/runs", json={"stage": "tokenizer"}, headers=headers)
    assert (bad.status_code, good.status_code) == (422, 201)


@sqlite_only
def test_gpus_follow_the_request_then_the_preset_then_the_workers(service: Service) -> None:
    assert post_run(service, stage="base")["gpus"] == 0
    FakeWorker(service, gpus=2)
    assert post_run(service, stage="base")["gpus"] == 1
    assert post_run(service, stage="base", config="debug_cpu")["gpus"] == 0
    both = post_run(service, stage="base", config="debug_cpu", gpus=2)
    assert both["gpus"] == 2 and both["config"]["device"] == "auto"
    assert post_run(service, stage="base", overrides={"device": "cpu"})["gpus"] == 0
    assert post_run(service, stage="tokenizer")["gpus"] == 0


def test_a_child_waits_for_its_parent_and_fails_with_it(service: Service) -> None:
    worker = FakeWorker(service)
    parent = post_run(service, overrides={"max_chars": 1000})
    child = post_run(service, stage="base", config="debug_cpu", parent=parent["id"])
    grandchild = post_run(service, stage="sft", parent=child["id"])
    assert child["state"] == grandchild["state"] == "waiting"
    claim = worker.claim()
    ended = worker.finish(claim, "failed", reason="data_error", message="no text", exit_code=1)
    assert ended.json() == {"state": "failed"}
    for waiting in (child, grandchild):
        failed = until(service, waiting["id"], "failed")
        assert failed["reason"] == "parent_failed" and failed["ended_at"]
    refused = service.client.post("/runs", json={"stage": "base", "parent": parent["id"]})
    assert refused.status_code == 422 and refused.json()["errors"][0]["pointer"] == "/parent"


def test_lists_filter_and_page_newest_first_without_hole_or_repeat(service: Service) -> None:
    made = [post_run(service, name=f"n{i}", tags=["odd" if i % 2 else "even"])["id"] for i in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = service.client.get("/runs", params=params).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["next_cursor"]
        if len(seen) == 3:
            post_run(service, name="late")  # does not shift the pages
        if cursor is None:
            break
    assert seen == made[::-1]
    odd = service.client.get("/runs", params={"tag": "odd"}).json()["items"]
    assert [run["id"] for run in odd] == [made[5], made[3], made[1]]
    assert service.client.get("/runs", params={"state": "running"}).json()["items"] == []
    assert len(service.client.get("/runs?state=queued&state=running").json()["items"]) == 8
    assert service.client.get("/runs", params={"stage": "base"}).json()["items"] == []
    before_time = base64.b64encode(b'["0001-01-01T00:00:00+14:00", "r1"]').decode()
    half = base64.b64encode(b'["2026-11-25T00:00:00Z", "\\ud800"]').decode()
    for cursor in ("xx", before_time, half):
        assert service.client.get("/runs", params={"cursor": cursor}).status_code == 422, cursor
    for bad in ({"limit": 0}, {"limit": 201}, {"state": "ill"}, {"stage": "no"}):
        assert service.client.get("/runs", params=bad).status_code == 422, bad


@sqlite_only
def test_priority_decides_who_is_first(service: Service) -> None:
    low = post_run(service, priority=-5)
    high = post_run(service, priority=5)
    worker = FakeWorker(service, slots=1)
    first = worker.claim()
    assert first["run_id"] == high["id"]
    assert eventually(lambda: run_of(service, low["id"])["blocked"]["code"] == "no_free_slot")
    worker.finish(first)
    assert worker.claim()["run_id"] == low["id"]
