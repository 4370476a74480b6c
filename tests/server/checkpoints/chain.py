"""A pipeline whose trainers say what real ones say: origins, checkpoints, evaluations. Nothing is trained."""

from __future__ import annotations

from typing import Any

from nanochat.paths import STAGE_DIRS
from tests.server.fake_worker import FakeWorker
from tests.services import Service

CODE = {"version": "0.1.0", "commit": "c0ffee", "changed": False}
STEPS = [
    {"name": "tokenizer", "stage": "tokenizer"},
    {"name": "base", "stage": "base", "config": "debug_cpu"},
    {"name": "mid", "stage": "mid", "gpus": 0},
    {"name": "sft", "stage": "sft", "gpus": 0},
    {"name": "eval", "stage": "chat_eval", "gpus": 0},
]


def path_of(run: dict[str, Any]) -> str:
    directory = STAGE_DIRS[run["stage"]]
    return f"{directory}/{run['id']}" + ("" if run["stage"] == "tokenizer" else "/step_000010")


def sha_of(run: dict[str, Any]) -> str:
    return run["id"].ljust(64, "0")


def artefact(run: dict[str, Any]) -> dict[str, str]:
    return {"path": path_of(run), "sha256": sha_of(run)}


def checkpoint(run: dict[str, Any], **origin: Any) -> dict[str, Any]:
    return {
        "kind": "checkpoint", "step": 0 if run["stage"] == "tokenizer" else 10, "stage": run["stage"],
        "path": path_of(run), "bytes": 7, "sha256": sha_of(run), "metrics": {},
        "model": None if run["stage"] == "tokenizer" else {"params": 1000}, "origin": origin or None,
    }  # fmt: skip


def scores(run: dict[str, Any] | None, name: str, right: float, **details: Any) -> dict[str, Any]:
    if run is not None:
        details["checkpoint"] = path_of(run)
    details["intervals"] = {"sums": [right / 2, (1 + right) / 2]}
    return {
        "kind": "eval", "step": 10, "name": name, "values": {"sums": right}, "counts": {"sums": 40},
        "details": details,
    }  # fmt: skip


def play(service: Service, worker: FakeWorker) -> dict[str, dict[str, Any]]:
    """The whole pipeline; its runs by step."""
    made = service.client.post("/pipelines", json={"name": "whole", "steps": STEPS})
    assert made.status_code == 201, made.text
    runs = dict(zip((step["name"] for step in STEPS), made.json()["runs"], strict=True))
    corpus = {"source": "pydocs", "documents": 5, "fingerprint": "f1"}
    tasks = {"source": "sums", "examples": 9}
    events: dict[str, list[dict[str, Any]]] = {
        "tokenizer": [checkpoint(runs["tokenizer"], corpus=corpus, code=CODE)],
        "base": [
            {"kind": "metric", "step": 10, "values": {"train/loss": 2.5, "val/bpb": 1.5}},
            checkpoint(runs["base"], corpus=corpus, code=CODE, tokenizer=artefact(runs["tokenizer"])),
        ],
        "mid": [checkpoint(runs["mid"], corpus=tasks, code=CODE, parent=artefact(runs["base"]))],
        "sft": [checkpoint(runs["sft"], corpus=tasks, code=CODE, parent=artefact(runs["mid"]))],
        "eval": [
            scores(runs["mid"], "chat_eval/before", 0.2),
            scores(runs["sft"], "chat_eval", 0.6, chat_core={"chat_core/partial": 0.5, "chat_core/tasks": 1}),
        ],
    }
    for step in runs:
        claim = worker.claim()
        assert worker.events(claim, *events[step]).status_code == 200
        assert worker.finish(claim).json() == {"state": "succeeded"}
    return runs
