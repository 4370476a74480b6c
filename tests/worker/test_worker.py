"""The worker process as it runs: registered, claiming through RQ, torchrun with two ranks, shipping."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from tests.services import Service, eventually
from tests.worker.conftest import StartWorker

pytestmark = [
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
    pytest.mark.timeout(170),
]
TINY = {
    "depth": 1,
    "max_seq_len": 64,
    "device_batch_size": 2,
    "total_batch_size": 256,
    "eval_every": 0,
    "sample_every": 0,
    "core_metric_every": 0,
}


def post(service: Service, **body: Any) -> str:
    answer = service.client.post("/runs", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def run(service: Service, run_id: str) -> dict[str, Any]:
    return dict(service.client.get(f"/runs/{run_id}").json())


def ended(service: Service, run_id: str, timeout_s: float = 90) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = run(service, run_id)
        return found if found["state"] in ("succeeded", "failed", "cancelled", "paused") else None

    return eventually(look, timeout_s, every_s=0.1)  # type: ignore[return-value]


def attempt_files(service: Service, run_id: str, number: int = 1) -> Path:
    return service.settings.base_dir / "runs" / run_id / f"attempt_{number}"


def test_a_posted_run_is_trained_by_two_ranks_and_everything_arrives(
    service: Service, start_worker: StartWorker, prose: Path
) -> None:
    start_worker()
    tokenizer = post(service, stage="tokenizer", overrides={"data": str(prose), "vocab_size": 300})
    base = post(
        service,
        stage="base",
        config="debug_cpu",
        parent=tokenizer,
        overrides={**TINY, "data": str(prose), "num_iterations": 6},
    )
    final = ended(service, base)
    assert (final["state"], final["step"], final["exit_code"]) == ("succeeded", 6, 0), final
    assert final["peak_bytes"] > 0
    files = attempt_files(service, base)
    log = service.client.get(f"/runs/{base}/logs", params={"format": "text"}).content
    assert log == (files / "run.log").read_bytes()
    assert b"2 rank" in log
    events = service.client.get(f"/runs/{base}/events", params={"limit": 200}).json()["items"]
    assert len(events) == len((files / "events.jsonl").read_text().splitlines())
    checkpoint = service.client.get(f"/runs/{base}/checkpoints").json()["items"][-1]
    assert (service.settings.base_dir / checkpoint["path"] / "manifest.json").is_file()


def test_a_run_whose_trainer_raises_says_why(
    service: Service, start_worker: StartWorker, tmp_path: Path
) -> None:
    start_worker()
    missing = tmp_path / "no-such-folder"
    final = ended(service, post(service, stage="tokenizer", overrides={"data": str(missing)}))
    assert (final["state"], final["reason"]) == ("failed", "data_error")
    assert final["exit_code"] != 0 and "no-such-folder" in final["message"]
    attempt = service.client.get(f"/runs/{final['id']}/attempts").json()["items"][0]
    assert any("no-such-folder" in line for line in attempt["tail"])
    assert len(attempt["tail"]) <= 200


def test_a_cancel_saves_a_checkpoint_and_leaves_no_process(
    service: Service, start_worker: StartWorker, prose: Path
) -> None:
    start_worker()
    tokenizer = post(service, stage="tokenizer", overrides={"data": str(prose), "vocab_size": 300})
    base = post(
        service,
        stage="base",
        config="debug_cpu",
        parent=tokenizer,
        overrides={**TINY, "data": str(prose), "num_iterations": 100_000, "compile": "off"},
    )
    eventually(lambda: (run(service, base)["step"] or 0) >= 3, 90)
    assert service.client.post(f"/runs/{base}/pause").status_code == 202
    assert ended(service, base)["state"] == "paused"
    saved = service.client.get(f"/runs/{base}/checkpoints").json()["items"]
    assert saved and saved[-1]["step"] >= 3
    assert service.client.post(f"/runs/{base}/resume").status_code == 202
    eventually(lambda: (run(service, base)["step"] or 0) > saved[-1]["step"] + 2, 60)
    assert service.client.post(f"/runs/{base}/cancel").status_code == 202
    assert ended(service, base)["state"] == "cancelled"
    steps = service.client.get(f"/runs/{base}/metrics", params={"keys": "train/loss", "max_points": 100_000})
    x = steps.json()["series"][0]["x"]
    assert x == list(range(1, len(x) + 1))


def test_foreign_messages_are_dropped_and_the_slot_lives(
    service: Service, start_worker: StartWorker, prose: Path, tmp_path: Path
) -> None:
    start_worker()
    found = service.client.get("/workers").json()["items"][0]
    assert found["slots"] == 1
    proof = tmp_path / "proof"
    with redis.Redis.from_url(service.settings.redis_url) as connection:
        name = (
            next(key.decode() for key in connection.smembers("rq:queues"))
            if connection.exists("rq:queues")
            else "rq:queue:host:x"
        )
        queue = Queue(name.removeprefix("rq:queue:"), connection=connection, serializer=JSONSerializer)
        queue.enqueue_call("os.mkdir", args=(str(proof),))
        queue.enqueue_call("worker.jobs.run_attempt", args=("no-such-attempt",))
    final = ended(
        service, post(service, stage="tokenizer", overrides={"data": str(prose), "vocab_size": 300})
    )
    assert final["state"] == "succeeded"
    assert not proof.exists()


def test_a_two_gpu_preset_waits_and_starts_by_itself_when_two_gpus_register(
    service: Service, start_worker: StartWorker, prose: Path
) -> None:
    plain = start_worker()
    ended(service, post(service, stage="tokenizer", overrides={"data": str(prose), "vocab_size": 300}))
    overrides = {
        **TINY,
        "data": str(prose),
        "num_iterations": 3,
        "eval_tokens": 0,
        "activation_checkpoint": True,
    }
    waiting = post(service, stage="base", config="stable_26gb", overrides=overrides)
    blocked = eventually(lambda: run(service, waiting)["blocked"])
    assert blocked["code"] == "no_capable_worker" and blocked["preset"] == "debug_cpu"
    plain.send_signal(signal.SIGTERM)
    plain.wait(40)
    start_worker(NANOCHAT_FAKE_GPUS="2")
    final = ended(service, waiting)
    assert (final["state"], final["gpus"], final["blocked"]) == ("succeeded", 2, None), final
