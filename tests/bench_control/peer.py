"""MLflow's tracking server on SQLite, the same work: batches of 1,000 points, and a history read back.

It is installed apart, in `place`, once: `python -m venv` and `pip install "mlflow>=3,<4"` (about 600 MB).
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.bench_control.load import Connection, percentile
from tests.services import free_port

HISTORY = 4000


def install(place: Path) -> Path:
    """The peer's `mlflow` program."""
    program = place / "bin" / "mlflow"
    if not program.exists():
        print(f"installing MLflow 3 in {place}, once", flush=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin" / "pip", "install", "-q", "mlflow>=3,<4"], check=True)
    return program


def measure(program: Path, requests: int) -> tuple[float, float, float]:
    """(points a second, p50 of a batch in ms, a history of 4,000 points in ms)."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        command = [program, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                   "--backend-store-uri", f"sqlite:///{home}/mlflow.db",
                   "--default-artifact-root", home]  # fmt: skip
        environ = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        with Path(home, "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=home, env=environ, stdout=log, stderr=log)
            try:
                _wait(port)
                return asyncio.run(_measure(port, requests))
            finally:
                process.terminate()
                process.wait(30)


def _wait(port: int) -> None:
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError("MLflow did not start")


async def _measure(port: int, requests: int) -> tuple[float, float, float]:
    http = await Connection(port).open()
    path = "/api/2.0/mlflow"
    body = json.dumps({"experiment_id": "0", "start_time": 1}).encode()
    run = json.loads(await http.ask("POST", f"{path}/runs/create", body))["run"]["info"]["run_id"]
    took = []
    for number in range(requests):
        metrics = [
            {"key": f"key{place % 10}", "value": place / 7, "timestamp": 1_700_000_000_000 + place,
             "step": number * 100 + place // 10}
            for place in range(1000)
        ]  # fmt: skip
        body = json.dumps({"run_id": run, "metrics": metrics}).encode()
        started = time.perf_counter()
        await http.ask("POST", f"{path}/runs/log-batch", body)
        took.append(1000 * (time.perf_counter() - started))
    for start in range(0, HISTORY, 1000):
        metrics = [
            {"key": "one", "value": step / 7, "timestamp": 1_700_000_000_000 + step, "step": step}
            for step in range(start, start + 1000)
        ]
        body = json.dumps({"run_id": run, "metrics": metrics}).encode()
        await http.ask("POST", f"{path}/runs/log-batch", body)
    reads = []
    for _ in range(5):
        started = time.perf_counter()
        query = f"{path}/metrics/get-history?run_id={run}&metric_key=one&max_results=25000"
        found = json.loads(await http.ask("GET", query))["metrics"]
        reads.append(1000 * (time.perf_counter() - started))
        assert len(found) == HISTORY
    http.close()
    return 1000 * requests / (sum(took) / 1000), percentile(took, 0.5), statistics.median(reads)
