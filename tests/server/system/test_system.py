"""Health, numbers and the live state of the whole."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from websockets.sync.client import connect

from server import migrate
from server.settings import Settings
from tests.server.fake_worker import FakeWorker, post_run, run_of
from tests.services import WORKER_TOKEN, Service, eventually

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_a_migrated_service_is_alive_and_ready(service: Service) -> None:
    assert service.client.get("/healthz").json() == {"status": "ok"}
    assert service.client.get("/readyz").json() == {"status": "ready"}


@sqlite_only
def test_a_database_at_another_revision_is_not_ready(service: Service) -> None:
    migrate.downgrade(service.settings.sqlalchemy_url)
    answer = service.client.get("/readyz")
    assert answer.status_code == 503 and "server.migrate" in answer.json()["detail"]
    assert service.client.get("/healthz").status_code == 200


def test_metrics_count_requests_by_route_and_runs_by_state(service: Service) -> None:
    worker = FakeWorker(service)
    run = post_run(service)
    for _ in range(3):
        run_of(service, run["id"])
    service.client.get("/no/such/page")
    eventually(worker.messages)
    text = service.client.get("/metrics").text
    assert 'nanochat_requests_total{method="GET",route="/runs/{run_id}",status="200"} 3.0' in text
    assert 'nanochat_requests_total{method="GET",route="unmatched",status="404"} 1.0' in text
    assert run["id"] not in text
    assert 'nanochat_runs{state="queued"} 1.0' in text
    assert 'nanochat_queue_depth{host="fake"} 1.0' in text
    assert "nanochat_queue_up 1.0" in text and "nanochat_event_loop_delay_seconds" in text


def test_metrics_tell_how_gpus_are_and_how_late_events_arrive(service: Service) -> None:
    worker = FakeWorker(service, gpus=1)
    gpu = {
        "index": 0, "name": "Fake 5090", "memory_used_bytes": 5, "memory_total_bytes": 9, "utilization": 0.5,
        "power_w": 400.0, "temperature_c": 71.0, "clock_sm_mhz": 2400, "throttle": ["power_cap"],
    }  # fmt: skip
    worker.beat(gpus=[gpu])
    post_run(service)
    claim = worker.claim()
    worker.events(claim, {"t": time.time() - 3, "kind": "metric", "step": 1, "values": {"train/loss": None}})
    text = service.client.get("/metrics").text
    where = f'{{gpu="0",host="fake",worker="{worker.id}"}}'
    for name, value in (("utilization_ratio", "0.5"), ("memory_used_bytes", "5.0"), ("power_watts", "400.0"),
                        ("temperature_celsius", "71.0"), ("clock_sm_mhz", "2400.0")):  # fmt: skip
        assert f"nanochat_gpu_{name}{where} {value}" in text
    assert 'reason="power_cap"' in text and "nanochat_gpu_clock_memory_mhz{" not in text
    assert f'nanochat_host_cpu_ratio{{host="fake",worker="{worker.id}"}} 0.5' in text
    assert 'nanochat_ingest_lag_seconds_bucket{le="2.0"} 0.0' in text
    assert 'nanochat_ingest_lag_seconds_bucket{le="60.0"} 1.0' in text
    assert (
        'nanochat_alerts_open{kind="gpu_hot"} 0.0' in text and "nanochat_webhook_messages_pending 0" in text
    )
    others = 1.0 if service.settings.database_url.startswith("postgres") else 0.0
    eventually(lambda: f"nanochat_replicas_listening {others}" in service.client.get("/metrics").text)


def test_the_system_shows_workers_and_what_they_do(service: Service) -> None:
    worker = FakeWorker(service, gpus=1)
    worker.beat()
    claimed = post_run(service)
    claim = worker.claim()
    system = service.client.get("/system").json()
    assert system["database"] in ("sqlite", "postgresql") and system["auth"] is False
    assert (system["queued"], system["running"]) == (0, 1)
    [view] = system["workers"]
    assert view["alive"] and view["runs"] == [claimed["id"]] and view["stats"]["cores"] == 2
    assert view["gpus"][0]["name"] == "Fake 5090"
    worker.finish(claim)
    assert service.client.get("/system").json()["running"] == 0


@sqlite_only
def test_a_worker_that_does_not_beat_is_not_alive(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from server.workers import repository

    FakeWorker(service)
    assert service.client.get("/workers").json()["items"][0]["alive"]
    monkeypatch.setattr(repository, "ALIVE_S", 0.0)
    assert not service.client.get("/workers").json()["items"][0]["alive"]
    assert post_run(service)["blocked"]["code"] == "no_worker"


@sqlite_only
def test_the_stream_welcomes_then_sends_the_state_when_it_changes(service: Service) -> None:
    with connect(f"{service.ws_url}/system/stream") as socket:
        assert json.loads(socket.recv(timeout=5))["op"] == "welcome"
        first = json.loads(socket.recv(timeout=5))
        assert (first["op"], first["channel"], first["first"], first["last"]) == ("batch", "system", 0, 1)
        assert first["items"][0]["workers"] == []
        FakeWorker(service)
        deadline = time.monotonic() + 5
        while True:
            frame = json.loads(socket.recv(timeout=5))
            if frame["op"] == "batch" and frame["items"][0]["workers"]:
                break
            assert time.monotonic() < deadline
        socket.send("no json")
        socket.send('{"op": "ping"}')
        ops = []
        while "pong" not in ops:
            ops.append(json.loads(socket.recv(timeout=5))["op"])
        assert "error" in ops


@sqlite_only
def test_without_a_queue_the_api_works_and_runs_wait(tmp_path: Path, database_url: str) -> None:
    settings = Settings(
        base_dir=tmp_path,
        database_url=database_url,
        redis_url="redis://127.0.0.1:1/0",
        worker_token=SecretStr(WORKER_TOKEN),
    )
    service = Service(settings).start()
    try:
        FakeWorker(service)
        run = post_run(service)
        eventually(lambda: run_of(service, run["id"])["attempt"] == 1)
        assert "nanochat_queue_up 0.0" in service.client.get("/metrics").text
        assert service.client.post(f"/runs/{run['id']}/cancel").status_code == 202
    finally:
        service.stop()


@sqlite_only
def test_openapi_describes_every_room(service: Service) -> None:
    paths = httpx.get(f"{service.base_url}/openapi.json").json()["paths"]
    for path in ("/runs", "/runs/{run_id}/retry", "/pipelines", "/stages", "/configs", "/workers", "/system",
                 "/internal/attempts/{attempt_id}/claim"):  # fmt: skip
        assert path in paths, path
