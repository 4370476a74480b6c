"""One run under a fault, and what must hold of it afterwards."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from nanochat.checkpoint import verify
from nanochat.paths import attempt_dir
from tests.faults.cluster import Cluster, wait_until
from worker import notes

STEPS, LONG = 120, 600
SAVE_EVERY = 20
CONFIG: dict[str, Any] = {
    "device": "auto",
    "dtype": "float32",
    "compile": "off",
    "depth": 1,
    "max_seq_len": 32,
    "device_batch_size": 2,
    "total_batch_size": 128,
    "save_every": SAVE_EVERY,
    "eval_every": 0,
    "sample_every": 0,
    "core_metric_every": 0,
}
MOMENTS = ("starting", "stepping", "saving", "ending")
WATCH_S = 0.05


class Watch(threading.Thread):
    """Looks all the time whether two attempts of one run have a process."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._cluster, self._done = cluster, threading.Event()
        self.twice: list[tuple[str, set[str]]] = []

    def run(self) -> None:
        while not self._done.wait(WATCH_S):
            self.twice += [(run, found) for run, found in self._cluster.trainers().items() if len(found) > 1]

    def stop(self) -> None:
        self._done.set()
        self.join()


class Trial:
    """A run of the tiny model, two ranks on two leased GPUs, with the fault's random numbers."""

    def __init__(
        self, cluster: Cluster, tokenizer: str, corpus: Path, rng: random.Random, steps: int
    ) -> None:
        self.cluster, self.rng, self.steps = cluster, rng, steps
        self.away_s = cluster.lease_s + 2.0
        """How long a part stays away."""
        body = {
            "stage": "base",
            "config": "debug_cpu",
            "parent": tokenizer,
            "gpus": cluster.gpus,
            "overrides": {**CONFIG, "data": str(corpus), "num_iterations": steps},
        }
        self._read: dict[int, tuple[list[dict[str, Any]], int]] = {}
        self.watch = Watch(cluster)
        self.watch.start()
        self.id = str(cluster.post("/runs", body)["id"])

    # ------------------------------------------------------------ moments

    @property
    def checkpoints(self) -> Path:
        return self.cluster.base / "base_checkpoints" / self.id

    def directory(self, number: int = 1) -> Path:
        return attempt_dir(self.cluster.base, self.id, number)

    @property
    def newest(self) -> int:
        """Number of the newest attempt that has a directory; 0: none."""
        found = (self.cluster.base / "runs" / self.id).glob("attempt_*")
        return max((int(place.name.rpartition("_")[2]) for place in found), default=0)

    @property
    def step(self) -> int:
        """Last step that the newest attempt has written down."""
        for event in reversed(self.events(self.newest)):
            if event["kind"] == "metric":
                return int(event["step"])
        return 0

    def events(self, number: int) -> list[dict[str, Any]]:
        """What an attempt has written so far. Asked for a hundred times a second: reads only what is new."""
        found, start = self._read.get(number, ([], 0))
        with suppress(OSError), (self.directory(number) / "events.jsonl").open("rb") as file:
            file.seek(start)
            lines = file.read().split(b"\n")[:-1]
            found += [event for line in lines if (event := _event(line))]
            self._read[number] = found, start + sum(len(line) + 1 for line in lines)
        return found

    def come_to(self, moment: str) -> None:
        """Wait for a moment of the first attempt; a moment that is missed is the end of the run."""
        if moment == "starting":
            wait_until(lambda: self.newest > 0)
            time.sleep(self.rng.uniform(0, 3))  # a moment by the clock: nothing tells it
        elif moment == "stepping":
            self.come_to_step(self.rng.randint(1, self.steps // 2))
        elif moment == "saving":
            self.come_to_step(self.rng.randrange(SAVE_EVERY, self.steps - SAVE_EVERY, SAVE_EVERY) - 1)
            wait_until(lambda: self.over or any(self.checkpoints.glob("*.tmp")), every_s=0.001)
        else:
            self.come_to_step(self.steps)

    def come_to_step(self, step: int) -> None:
        wait_until(lambda: self.over or self.step >= step)

    @property
    def over(self) -> bool:
        return any(event["kind"] == "end" for event in self.events(self.newest))

    # ------------------------------------------------------------ what must hold

    def ends(self, reference: dict[int, float], state: str = "succeeded") -> None:
        """The run ends well and as if nothing had happened."""
        run = self.cluster.until(self.id, "succeeded", "failed", "cancelled", "paused")
        assert run["state"] == state, f"{run['state']}: {run['reason']} {run['message']}"
        self.is_whole(reference, self.steps)
        self.left_nothing()

    def is_whole(self, reference: dict[int, float], steps: int) -> None:
        """Losses, steps, log: as an uninterrupted run has them, up to step `steps`."""
        found = losses(self.cluster, self.id)
        assert list(found) == list(range(1, steps + 1)), f"steps {_ranges(list(found))}"
        wrong = [step for step, loss in found.items() if loss != reference[step]]
        assert not wrong, f"other losses at steps {_ranges(wrong)}"
        streamed = self.streamed()
        assert streamed == list(range(1, steps + 1)), f"a reader of the stream sees steps {_ranges(streamed)}"
        self.log_is_complete()

    def log_is_complete(self) -> None:
        written = b"".join(
            (self.directory(number) / "run.log").read_bytes() for number in range(1, self.newest + 1)
        )
        answer = self.cluster.http.get(f"/runs/{self.id}/logs", params={"format": "text"})
        assert answer.content == written, f"{len(answer.content)} of {len(written)} bytes of log"

    def streamed(self) -> list[int]:
        """Steps that a reader of the stream has at the end, who minds `rewind` frames."""
        seen: list[int] = []
        url = f"{self.cluster.url.replace('http', 'ws')}/runs/{self.id}/stream?channels=metric"
        with connect(url, max_size=None) as socket:
            for raw in socket:
                frame = json.loads(raw)
                if frame["op"] == "rewind":
                    seen = [step for step in seen if step <= frame["step"]]
                elif frame["op"] == "batch":
                    seen += [item["step"] for item in frame["items"] if "train/loss" in item["values"]]
        return seen

    def left_nothing(self) -> None:
        """No process, no lease, no note; and there never were two trainers."""
        wait_until(lambda: not self.cluster.trainers(), GONE_S)
        busy = [gpu for w in self.cluster.get("/workers")["items"] for gpu in w["busy_gpus"]]
        assert busy == [], f"GPUs {busy} are still leased"
        for name in [part for part in self.cluster.parts if part.startswith("worker")]:
            host = self.cluster.host(name)
            wait_until(lambda: not notes.read_all(self.cluster.base, host), GONE_S)  # noqa: B023
        self.watch.stop()
        assert not self.watch.twice, f"two trainers at once: {self.watch.twice[:3]}"

    def checkpoints_are_whole(self) -> None:
        for row in self.cluster.get(f"/runs/{self.id}/checkpoints")["items"]:
            verify(self.cluster.base / row["path"])


GONE_S = 30.0


def losses(cluster: Cluster, run_id: str) -> dict[int, float]:
    """Training loss by step, as GET /metrics has it, in the order it has it."""
    found = cluster.get(f"/runs/{run_id}/metrics", keys="train/loss", max_points=100_000)
    series = found["series"][0] if found["series"] else {"x": [], "y": []}
    assert len(set(series["x"])) == len(series["x"]), "a step comes twice"
    return {int(step): loss for step, loss in zip(series["x"], series["y"], strict=True)}


def _event(line: bytes) -> dict[str, Any] | None:
    with suppress(ValueError):
        found = json.loads(line)
        return found if isinstance(found, dict) and "kind" in found else None
    return None


def _ranges(steps: list[int]) -> str:
    return f"{steps[:3]} … {steps[-3:]} ({len(steps)})"
