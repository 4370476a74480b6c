"""A real cluster of Ray on this machine: nodes with addresses of their own, out of 127.0.0.0/8."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

from nanochat.paths import repo_dir
from tests.services import eventually, free_port

OBJECT_STORE_BYTES = 80_000_000
HEAD = "127.0.0.2"  # 127.0.0.1 would be replaced by this machine's other address
#: a node that is killed is known to be dead after 3 s, not after 15
IMPATIENT = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
ASK = """
import json, sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps({"all": ray.cluster_resources(), "free": ray.available_resources()}))
"""


class Cluster:
    """Nodes by their address, each with two GPUs that do not exist and one CPU."""

    def __init__(self, site: Path, gpus: int = 2) -> None:
        """`site`: a directory with Ray in it."""
        self.gpus = gpus
        self.place = Path(tempfile.mkdtemp(prefix="ray-"))  # of short name: sockets lie below it
        self.address = f"{HEAD}:{free_port()}"
        self.environ = {
            **{key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"},
            **IMPATIENT,
            "PYTHONPATH": os.pathsep.join([str(repo_dir()), str(site)]),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, address: str) -> None:
        """Start a node, the head first, and wait until it is one."""
        head = ["--head", "--port", self.address.rpartition(":")[2], "--include-dashboard=false"]
        head += [f"--ray-client-server-port={free_port()}", f"--temp-dir={self.place}"]
        options = head if address == HEAD else [f"--address={self.address}"]
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"),
            *(f"--num-gpus={self.gpus}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
            *(f"--node-ip-address={address}", f"--dashboard-agent-listen-port={free_port()}", *options),
        ]
        with (self.place / f"{address}.log").open("wb") as log:
            self.nodes[address] = subprocess.Popen(
                command, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        eventually(lambda: self._has(len(self.nodes)), 90, every_s=0.5)

    def _has(self, nodes: int) -> bool:
        """Whether so many nodes are there."""
        dead = {address: node.returncode for address, node in self.nodes.items() if node.poll() is not None}
        assert not dead, {address: (self.place / f"{address}.log").read_text() for address in dead}
        with contextlib.suppress(subprocess.SubprocessError):
            return self.resources()["all"].get("CPU") == nodes
        return False

    def resources(self) -> dict[str, Any]:
        """What Ray has (`all`), and what of it nobody holds (`free`)."""
        done = subprocess.run(
            [sys.executable, "-c", ASK, self.address], env=self.environ, capture_output=True, timeout=60,
            check=True,
        )  # fmt: skip
        return dict(json.loads(done.stdout.splitlines()[-1]))

    def is_free(self) -> bool:
        """Whether no actor and no placement group holds anything."""
        found = self.resources()
        return all(found["free"].get(kind) == found["all"][kind] for kind in ("CPU", "GPU"))

    def lose(self, address: str) -> int:
        """SIGKILL to the node and all that it has started, looked up before the first dies; how many."""
        found: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            node = psutil.Process(self.nodes.pop(address).pid)
            found = [node, *node.children(recursive=True)]
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=10)
        return len(found)

    def close(self) -> None:
        for address in list(self.nodes):
            self.lose(address)
        shutil.rmtree(self.place, ignore_errors=True)
