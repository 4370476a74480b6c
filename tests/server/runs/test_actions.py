"""What a user can ask of a run, in every state."""

from __future__ import annotations

import pytest

from tests.server.fake_worker import FakeWorker, post_run, run_of, store_checkpoint, until
from tests.services import Service, eventually

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def ask(service: Service, run_id: str, verb: str) -> int:
    return service.client.post(f"/runs/{run_id}/{verb}").status_code


def test_a_queued_run_is_cancelled_at_once_and_stays_cancelled(service: Service) -> None:
    run = post_run(service)
    assert ask(service, run["id"], "cancel") == 202
    ended = run_of(service, run["id"])
    assert ended["state"] == "cancelled" and ended["ended_at"] and ended["blocked"] is None
    for verb in ("cancel", "pause", "resume"):
        assert ask(service, run["id"], verb) == 409, verb
    assert run_of(service, run["id"]) == ended


def test_a_running_run_is_told_to_stop_and_ends_cancelled(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    claim = worker.claim()
    assert worker.beat_attempt(claim).json()["desired"] == "run"
    assert ask(service, run["id"], "cancel") == 202
    assert worker.beat_attempt(claim).json() == {
        "desired": "cancel",
        "movable": False,
        "lease_s": 3.0,
        "broken": False,
    }
    assert run_of(service, run["id"])["state"] == "stopping"
    assert worker.finish(claim, "stopped", exit_code=0).json() == {"state": "cancelled"}
    assert run_of(service, run["id"])["state"] == "cancelled"


def test_a_cancelled_run_that_had_to_be_killed_is_cancelled_not_retried(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    claim = worker.claim()
    ask(service, run["id"], "cancel")
    assert worker.finish(claim, "failed", reason="killed_signal", signal=9).json() == {"state": "cancelled"}


def test_pause_and_resume_make_a_second_attempt_that_goes_on(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service, stage="base", config="debug_cpu", overrides={"tokenizer": "t"})
    first = worker.claim()
    assert ask(service, run["id"], "pause") == 202
    assert worker.beat_attempt(first).json()["desired"] == "pause"
    assert worker.finish(first, "stopped").json() == {"state": "paused"}
    assert ask(service, run["id"], "pause") == 202  # already so
    assert ask(service, run["id"], "resume") == 202
    second = worker.claim()
    assert (second["run_id"], second["number"]) == (run["id"], 2)
    assert second["config"]["resume_from"] == "auto"
    attempts = service.client.get(f"/runs/{run['id']}/attempts").json()["items"]
    assert [(a["number"], a["state"]) for a in attempts] == [(1, "paused"), (2, "starting")]


def test_a_paused_queued_run_gives_its_place_back(service: Service) -> None:
    worker = FakeWorker(service, slots=1)
    run = post_run(service)
    attempt_id = worker.take_message()
    assert ask(service, run["id"], "pause") == 202
    refused = worker.try_claim(attempt_id)
    assert refused.status_code == 409 and refused.json()["code"] == "not_claimable"
    other = post_run(service)
    assert worker.claim()["run_id"] == other["id"]


def test_resume_before_the_trainer_left_lets_the_run_go_on_as_a_new_attempt(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    claim = worker.claim()
    ask(service, run["id"], "pause")
    worker.beat_attempt(claim)
    assert ask(service, run["id"], "resume") == 202
    assert worker.finish(claim, "stopped").json() == {"state": "queued"}
    assert worker.claim()["number"] == 2


async def test_retry_is_a_new_run_from_the_old_ones_last_checkpoint(service: Service) -> None:
    worker = FakeWorker(service)
    old = post_run(
        service, stage="base", config="debug_cpu", overrides={"tokenizer": "t"}, max_restarts=2, tags=["x"]
    )
    claim = worker.claim()
    assert ask(service, old["id"], "retry") == 409
    await store_checkpoint(service, old["id"], "base", "base_checkpoints/old/step_000050", step=50)
    worker.finish(claim, "failed", reason="nan_loss")
    headers = {"idempotency-key": "again"}
    answers = [service.client.post(f"/runs/{old['id']}/retry", headers=headers) for _ in range(2)]
    new = answers[0].json()
    assert [a.status_code for a in answers] == [202, 202] and answers[1].json()["id"] == new["id"]
    assert new["id"] != old["id"] and new["retry_of"] == old["id"] and new["tags"] == ["x"]
    second = worker.claim()
    assert second["run_id"] == new["id"]
    assert second["config"]["resume_from"] == "base_checkpoints/old/step_000050"
    # once it has a checkpoint of its own, it goes on from that
    await store_checkpoint(service, new["id"], "base", "base_checkpoints/new/step_000060", step=60)
    worker.finish(second, "failed", reason="killed_signal", signal=9)
    assert worker.claim()["config"]["resume_from"] == "auto"


async def test_retry_goes_on_from_the_checkpoint_that_was_chosen(service: Service) -> None:
    worker = FakeWorker(service)
    old = post_run(service, stage="base", config="debug_cpu", overrides={"tokenizer": "t"})
    claim = worker.claim()
    for step, bpb in ((50, 1.5), (100, 1.2), (150, 1.9)):
        path = f"base_checkpoints/old/step_{step:06d}"
        await store_checkpoint(service, old["id"], "base", path, step=step, **{"val/bpb": bpb})
    worker.finish(claim, "failed", reason="nan_loss")
    ids = {c["step"]: c["id"] for c in service.client.get(f"/runs/{old['id']}/checkpoints").json()["items"]}
    url = f"/runs/{old['id']}/retry"

    def resumes_from(**body: str) -> str:
        answer = service.client.post(url, json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["config"]["resume_from"])

    assert resumes_from(checkpoint="step:50") == "base_checkpoints/old/step_000050"
    assert resumes_from(checkpoint="best:val/bpb") == "base_checkpoints/old/step_000100"
    assert resumes_from(checkpoint=ids[100]) == "base_checkpoints/old/step_000100"
    assert resumes_from(checkpoint="last") == resumes_from() == "base_checkpoints/old/step_000150"
    assert resumes_from(checkpoint="none") == ""
    for name, nearest in (
        ("step:51", "step:150"),
        ("cother", "step:150"),
        ("best", "step:150"),
        ("../x", "last"),
    ):
        answer = service.client.post(url, json={"checkpoint": name})
        assert answer.status_code == 422, name
        [item] = answer.json()["errors"]
        assert (item["pointer"], item["nearest"]) == ("/checkpoint", nearest)
    assert service.client.post(url, json={"step": 50}).status_code == 422
    headers = {"idempotency-key": "k"}
    statuses = [
        service.client.post(url, json={"checkpoint": name}, headers=headers).status_code
        for name in ("step:50", "step:50", "step:100")
    ]
    assert statuses == [202, 202, 409]


async def test_a_stage_that_saves_nothing_in_between_is_retried_from_its_beginning(service: Service) -> None:
    worker = FakeWorker(service)
    old = post_run(service)
    worker.finish(worker.claim(), "failed", reason="data_error")
    assert service.client.post(f"/runs/{old['id']}/retry", json={"checkpoint": "step:1"}).status_code == 422
    assert service.client.post(f"/runs/{old['id']}/retry", json={"checkpoint": "none"}).status_code == 202


def test_patch_changes_what_is_about_a_run_under_its_version(service: Service) -> None:
    run = post_run(service)
    url, etag = f"/runs/{run['id']}", f'"{run["version"]}"'
    changed = service.client.patch(url, json={"name": "new", "notes": "n"}, headers={"if-match": etag})
    assert changed.status_code == 200 and changed.json()["name"] == "new"
    stale = service.client.patch(url, json={"name": "other"}, headers={"if-match": etag})
    assert stale.status_code == 412 and run_of(service, run["id"])["name"] == "new"
    assert service.client.patch(url, json={"notes": "a\0b"}).status_code == 422
    assert service.client.patch(url, json={"state": "succeeded"}).status_code == 422
    assert service.client.patch(url, json={"name": None}).status_code == 422


async def test_delete_removes_an_ended_run_and_its_files_only(service: Service) -> None:
    worker = FakeWorker(service)
    run, other = post_run(service), post_run(service)
    eventually(lambda: len(worker.messages()) == 2)
    base = service.settings.base_dir
    for run_id in (run["id"], other["id"]):
        (base / "runs" / run_id / "attempt_1").mkdir(parents=True)
        (base / "tokenizer" / run_id).mkdir(parents=True)
    (base / "tokenizer" / "latest").symlink_to(run["id"])
    assert service.client.delete(f"/runs/{run['id']}").status_code == 409
    await store_checkpoint(service, run["id"], "tokenizer", f"tokenizer/{run['id']}")
    ask(service, run["id"], "cancel")
    assert service.client.delete(f"/runs/{run['id']}").status_code == 204
    assert service.client.get(f"/runs/{run['id']}").status_code == 404
    assert [run["id"] for run in service.client.get("/runs").json()["items"]] == [other["id"]]
    assert not (base / "runs" / run["id"]).exists() and not (base / "tokenizer" / run["id"]).exists()
    assert not (base / "tokenizer" / "latest").is_symlink()
    assert (base / "runs" / other["id"] / "attempt_1").exists()
    assert (base / "tokenizer" / other["id"]).exists()
    gone = worker.try_claim(worker.take_message())
    assert gone.status_code == 409 and gone.json()["code"] == "not_claimable"
    assert worker.claim()["run_id"] == other["id"]


@sqlite_only
def test_a_run_others_start_from_is_not_deleted(service: Service) -> None:
    worker = FakeWorker(service)
    parent = post_run(service)
    child = post_run(service, stage="base", config="debug_cpu", parent=parent["id"])
    worker.finish(worker.claim())
    refused = service.client.delete(f"/runs/{parent['id']}")
    assert refused.status_code == 409 and child["id"] in refused.json()["detail"]


@sqlite_only
def test_unknown_runs_are_404_problems_everywhere(service: Service) -> None:
    for method, path in [
        ("GET", "/runs/r1"), ("PATCH", "/runs/r1"), ("DELETE", "/runs/r1"), ("POST", "/runs/r1/cancel"),
        ("POST", "/runs/r1/pause"), ("POST", "/runs/r1/resume"), ("POST", "/runs/r1/retry"),
        ("GET", "/runs/r1/attempts"), ("GET", "/pipelines/p1"), ("POST", "/pipelines/p1/cancel"),
        ("GET", "/stages/bass"), ("GET", "/configs/nope"),
    ]:  # fmt: skip
        answer = service.client.request(method, path, json={} if method == "PATCH" else None)
        assert answer.status_code == 404, (method, path)
        assert answer.json()["code"] == "not_found"


def test_ids_that_no_database_can_hold_are_not_found(service: Service) -> None:
    assert service.client.get("/runs/%00").status_code == 404
    assert service.client.get("/pipelines/%00").status_code == 404
    assert service.client.get("/runs/" + "r" * 500).status_code == 404
    assert service.client.post("/runs", json={"stage": "base", "parent": "\0"}).status_code == 422
    assert service.internal.post("/internal/attempts/a%00/beat", json={"fence": 1}).status_code == 404


def test_a_waiting_run_can_be_paused_and_cancelled(service: Service) -> None:
    parent = post_run(service)
    child = post_run(service, stage="base", config="debug_cpu", parent=parent["id"])
    assert ask(service, child["id"], "pause") == 202
    assert run_of(service, child["id"])["state"] == "paused"
    assert ask(service, child["id"], "resume") == 202
    assert run_of(service, child["id"])["blocked"]["code"] in ("no_worker", "missing_input")
    assert ask(service, child["id"], "cancel") == 202
    until(service, child["id"], "cancelled")
