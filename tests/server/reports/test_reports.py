"""The report of a chain of runs, out of the database."""

from __future__ import annotations

from typing import Any

from tests.server.checkpoints.chain import checkpoint, play, scores
from tests.server.fake_worker import FakeWorker, post_run
from tests.services import Service


def report(service: Service, place: str, **params: str) -> Any:
    answer = service.client.get(f"/{place}/report", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json() if not params else answer


def test_the_models_of_a_pipeline_stand_side_by_side(service: Service) -> None:
    runs = play(service, FakeWorker(service))
    found = report(service, f"runs/{runs['base']['id']}")
    assert found == report(service, f"pipelines/{runs['base']['pipeline']}")
    assert found["title"] == "whole" and found["missing"] == []
    assert found["runs"] == [run["id"] for run in runs.values()]
    rows = {row["title"]: row["cells"] for row in found["rows"]}
    assert rows["sums"]["mid"] == {"value": 0.2, "low": 0.1, "high": 0.6, "count": 40}
    assert rows["sums"]["sft"]["value"] == 0.6
    assert rows["bits per byte, val"] == {"base": {"value": 1.5, "low": None, "high": None, "count": None}}
    assert rows["ChatCORE, 1 of its tasks"]["sft"]["value"] == 0.5
    text = report(service, f"runs/{runs['base']['id']}", format="text")
    assert text.headers["content-type"].startswith("text/markdown")
    assert text.text == found["markdown"]
    assert "| sums (40 problems) | – | 20.0 % (10–60) | 60.0 % (30–80) | – |" in text.text
    assert "commit c0ffee" in text.text and text.text.index("## Tokenizer") < text.text.index("## Mid")


def test_a_run_outside_a_pipeline_is_shown_with_its_parents_and_their_evaluations(service: Service) -> None:
    worker = FakeWorker(service)
    base = post_run(service, stage="base", config="debug_cpu", overrides={"tokenizer": "t"})
    claim = worker.claim()
    worker.events(claim, checkpoint(base))
    worker.finish(claim)
    sft = post_run(service, stage="sft", gpus=0, parent=base["id"])
    claim = worker.claim()
    worker.events(claim, checkpoint(sft))
    worker.finish(claim)
    judged = post_run(service, stage="chat_eval", gpus=0, parent=base["id"])
    claim = worker.claim()
    worker.events(claim, scores(base, "chat_eval", 0.1))
    worker.finish(claim)
    unrelated = post_run(service)
    found = report(service, f"runs/{sft['id']}")
    assert (
        set(found["runs"]) == {base["id"], sft["id"], judged["id"]} and unrelated["id"] not in found["runs"]
    )
    assert [row["cells"]["base"]["value"] for row in found["rows"] if row["title"] == "sums"] == [0.1]


def test_what_has_not_succeeded_is_named_and_says_nothing(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    worker.events(worker.claim(), scores(None, "tok_eval", 0.5))
    found = report(service, f"runs/{run['id']}")
    assert found["missing"] == [run["id"]] and found["rows"] == []
    assert "No evaluation has been run yet." in found["markdown"]
    assert service.client.get("/runs/r0/report").status_code == 404
