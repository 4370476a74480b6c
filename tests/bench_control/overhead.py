"""What the service costs beside a run: CPU seconds of all its processes against those of bare torchrun.

The same training twice in turn: through server, Valkey and worker (with all they do by default: telemetry,
log, metrics, leases, checkpoints made known), and the script alone under torchrun. The service's share is
what its own processes burn from the request to the run's end; importing torch is in both sides' trainer.
Not covered: readers of the dashboard.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from nanochat.paths import repo_dir
from tests.faults.campaign import Campaign, running
from tests.faults.cluster import Cluster
from tests.services import eventually

#: about a minute of steps as the demo's: two ranks on two cores
CONFIG: dict[str, Any] = {
    "device": "cpu", "dtype": "float32", "depth": 4, "max_seq_len": 256, "device_batch_size": 8,
    "total_batch_size": 4096, "num_iterations": 150, "eval_every": 50, "eval_tokens": 8192,
    "sample_every": 0, "core_metric_every": 0, "save_every": 50,
}  # fmt: skip
SAMPLE_S = 0.25
LOOK_S = 2.0


class Meter(threading.Thread):
    """CPU seconds of the service's processes from `start` to `stop`, itself not among them."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self._cluster, self._done = cluster, threading.Event()
        self._first: dict[int, float] = {}
        self._last: dict[int, float] = {}
        self._names: dict[int, str] = {}
        self._look()

    def _look(self) -> None:
        family = self._cluster.family()
        for name in ("queue", "server"):
            with suppress(psutil.NoSuchProcess):
                self._note(psutil.Process(self._cluster.parts[name].pid), name)
        for name, found in (("worker", family.worker), ("guard", family.guards)):
            for process in found:
                self._note(process, name)

    def _note(self, process: psutil.Process, name: str) -> None:
        try:
            used = process.cpu_times()
        except psutil.Error:
            return
        seconds = used.user + used.system
        if not self._first or process.pid not in self._first:
            # a process that began meanwhile began with nothing
            self._first[process.pid] = 0.0 if self.is_alive() else seconds
        self._last[process.pid], self._names[process.pid] = seconds, name

    def run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self._look()

    def stop(self) -> dict[str, float]:
        """CPU seconds by part."""
        self._done.set()
        self.join()
        self._look()
        found: dict[str, float] = {}
        for pid, seconds in self._last.items():
            found[self._names[pid]] = found.get(self._names[pid], 0.0) + seconds - self._first[pid]
        return found


def through_the_service(campaign: Campaign) -> dict[str, float]:
    cluster = campaign.cluster
    meter = Meter(cluster)
    meter.start()
    body = {
        "stage": "base",
        "parent": campaign.tokenizer,
        "overrides": {**CONFIG, "processes": 2, "data": str(campaign.corpus)},
    }
    run_id = str(cluster.post("/runs", body)["id"])
    # whoever asks all the time would be most of what the server does
    eventually(lambda: cluster.run(run_id)["state"] in ("succeeded", "failed"), 900, LOOK_S)
    found = meter.stop()
    assert (run := cluster.run(run_id))["state"] == "succeeded", run
    return found


def alone(campaign: Campaign, number: int) -> float:
    """CPU seconds of torchrun and its ranks."""
    flags = {**CONFIG, "data": str(campaign.corpus), "model_tag": f"alone{number}"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "scripts.base_train", *(f"--{key}={value}" for key, value in flags.items())),
    ]
    environ = {**os.environ, "NANOCHAT_BASE_DIR": str(campaign.cluster.base), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=repo_dir(), env=environ, check=True, capture_output=True, timeout=900)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> tuple[float, dict[str, float], float]:
    """Medians: the service's share of bare torchrun's CPU seconds; its seconds by part; torchrun's."""
    services, bare = [], []
    with (
        tempfile.TemporaryDirectory(prefix="nanochat-bench-", ignore_cleanup_errors=True) as place,
        # leases, and how often a host is measured, as a service has them by default
        running(Path(place), lease_s=300.0, stats_s=2.0) as campaign,
    ):
        for number in range(rounds):
            services.append(through_the_service(campaign))
            bare.append(alone(campaign, number))
    shares = [sum(parts.values()) / seconds for parts, seconds in zip(services, bare, strict=True)]
    names = {name for parts in services for name in parts}
    medians = {name: statistics.median(parts.get(name, 0.0) for parts in services) for name in sorted(names)}
    return statistics.median(shares), medians, statistics.median(bare)
