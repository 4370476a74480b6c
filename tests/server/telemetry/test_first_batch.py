"""The first batch over HTTP: as the trainer told it, or why there is none."""

from __future__ import annotations

from typing import Any

import pytest

from nanochat.chat import render_conversation
from nanochat.tokenizer import Tokenizer
from nanochat.train.first_batch import Row, described
from tests.server.fake_worker import FakeWorker, post_run
from tests.server.telemetry.test_ingest import Shipping
from tests.services import Service

TOKENIZER = Tokenizer.train(iter(["the cat sat on the mat"] * 20), 270)
CHAT = [{"role": "user", "content": "你好\0"}, {"role": "assistant", "content": "the cat"}]
BASE = {"stage": "base", "config": "debug_cpu", "gpus": 0, "overrides": {"tokenizer": "tokenizer/x"}}


def event(advantage: float) -> dict[str, Any]:
    """What a trainer would write."""
    rows = [Row(*render_conversation(TOKENIZER, CHAT, 100), {"reward": 1.0, "advantage": advantage})]
    return {"kind": "first_batch", "step": 1, "batch": 4, "rows": described(TOKENIZER, rows)}


def begin(service: Service) -> tuple[FakeWorker, Shipping]:
    worker = FakeWorker(service)
    post_run(service)
    worker.finish(worker.claim())
    post_run(service, **BASE)
    return worker, Shipping(service, worker, worker.claim())


def test_the_first_batch_is_answered_token_by_token(service: Service) -> None:
    worker, trainer = begin(service)
    path = f"/runs/{trainer.run_id}/first_batch"
    trainer.events({"kind": "phase", "phase": "train", "step": 0, "steps": 2}, event(0.5))
    told = trainer.get(path)
    assert (told["step"], told["attempt"], told["size"]) == (1, 1, 4)
    (row,) = told["rows"]
    assert row["advantage"] == 0.5 and row["length"] == sum(len(token["ids"]) for token in row["tokens"])
    texts = [token["text"] for token in row["tokens"]]
    assert texts[:5] == ["<|bos|>", "<|user_start|>", "你", "好", "\N{REPLACEMENT CHARACTER}"]
    assert [token["text"] for token in row["tokens"] if token["special"]] == [
        "<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>",
    ]  # fmt: skip
    assert "".join(token["text"] for token in row["tokens"] if token["counts"]) == "the cat<|assistant_end|>"
    assert len(row["tokens"][2]["ids"]) == 3
    worker.finish(trainer.claim, "failed", reason="killed_signal")
    again = Shipping(service, worker, worker.claim())
    again.events({"kind": "phase", "phase": "train", "step": 0, "steps": 2}, event(-0.5))
    told = again.get(path)
    assert told["attempt"] == 2 and told["rows"][0]["advantage"] == -0.5, "it began anew: the last one counts"


def test_a_run_without_one_says_why(service: Service) -> None:
    worker, trainer = begin(service)
    client = service.client
    for run_id, said in (
        (trainer.run_id, "right before the first step"),
        (client.get("/runs?stage=tokenizer").json()["items"][0]["id"], "does not train in batches"),
    ):
        answer = client.get(f"/runs/{run_id}/first_batch")
        assert answer.status_code == 404 and said in answer.json()["detail"]
        assert answer.json()["code"] == "no_first_batch"
    worker.finish(trainer.claim, "failed", reason="data_error")
    assert "ended before" in client.get(f"/runs/{trainer.run_id}/first_batch").json()["detail"]
    assert client.get("/runs/r9999999999/first_batch").json()["code"] == "not_found"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "rows",
    [
        None,
        [7],
        [{}],
        [{"length": 1, "text": ["a"], "ids": [], "counts": [1], "special": []}],
        [{"length": 1, "text": [["a"]], "ids": [[1]], "counts": [1], "special": []}],
        [{"length": 1, "text": ["a"], "ids": [[1]], "counts": [1], "special": [{}]}],
    ],
)
def test_what_nobody_can_read_is_no_batch(service: Service, rows: Any) -> None:
    _, trainer = begin(service)
    trainer.events({"kind": "first_batch", "step": 1, "batch": 4, "rows": rows})
    assert service.client.get(f"/runs/{trainer.run_id}/first_batch").status_code == 404
