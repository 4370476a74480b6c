"""Evaluations are rows that know which checkpoint they are of."""

from __future__ import annotations

from tests.server.checkpoints.chain import play, scores
from tests.server.fake_worker import FakeWorker, post_run
from tests.services import Service


def test_results_are_found_by_what_was_measured_by_whom_and_by_name(service: Service) -> None:
    runs = play(service, FakeWorker(service))

    def found(**filters: str) -> list[tuple[str, str]]:
        answer = service.client.get("/evaluations", params=filters)
        assert answer.status_code == 200, answer.text
        return [(row["name"], row["stage"]) for row in answer.json()["items"]]

    both = [("chat_eval", "sft"), ("chat_eval/before", "mid")]
    assert sorted(found()) == sorted(found(run=runs["eval"]["id"])) == both
    (mid,) = service.client.get(f"/runs/{runs['mid']['id']}/checkpoints").json()["items"]
    assert found(checkpoint=mid["id"]) == found(stage="mid") == found(name="chat_eval/before") == both[1:]
    assert found(checkpoint="c0") == found(run="r0") == []
    (row,) = service.client.get("/evaluations", params={"name": "chat_eval"}).json()["items"]
    assert row["intervals"] == {"sums": [0.3, 0.8]}
    assert row["totals"] == {"ChatCORE, 1 of its tasks": 0.5}
    assert row["run_id"] == runs["eval"]["id"] and row["checkpoint"] != mid["id"]


def test_pages_of_results_follow_one_another_without_gap_or_repeat(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    names = [f"e{number}" for number in range(7)]
    worker.events(worker.claim(), *(scores(None, name, 0.5) for name in names))
    seen, cursor = [], None
    while True:
        params = {"limit": 3, **({"cursor": cursor} if cursor else {})}
        page = service.client.get("/evaluations", params=params).json()
        assert len(page["items"]) <= 3
        seen += [row["name"] for row in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == names and len(set(seen)) == 7
    assert service.client.get("/evaluations", params={"cursor": "x"}).status_code == 422
    del run


def test_a_result_outlives_the_checkpoint_it_is_of(service: Service) -> None:
    runs = play(service, FakeWorker(service))
    assert service.client.delete(f"/runs/{runs['sft']['id']}").status_code in (200, 204)
    (row,) = service.client.get("/evaluations", params={"name": "chat_eval"}).json()["items"]
    assert row["checkpoint"] is None and row["stage"] == "sft"


def test_what_a_trainer_measures_of_itself_is_of_its_own_checkpoint(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service, stage="base", config="debug_cpu", overrides={"tokenizer": "t"})
    claim = worker.claim()
    saved = {"kind": "checkpoint", "step": 10, "path": "p", "bytes": 1, "sha256": "s", "model": {"params": 1}}
    worker.events(claim, saved, scores(None, "core", 0.5))
    (row,) = service.client.get("/evaluations", params={"run": run["id"]}).json()["items"]
    (made,) = service.client.get(f"/runs/{run['id']}/checkpoints").json()["items"]
    assert (row["checkpoint"], row["stage"]) == (made["id"], "base")
