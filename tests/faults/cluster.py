"""The whole service as processes that can be killed, frozen and cut off from each other one by one."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from nanochat.paths import repo_dir
from server import embedded
from tests.faults.proxy import Proxy
from tests.services import eventually, free_port
from worker import processes

LEASE_S = 3.0
GRACE_S = 20.0
STATS_S = 0.5
READY_S = 120.0
TOKEN = "token-of-the-faults"


@dataclass
class Family:
    """The processes of one worker, by what they do."""

    supervisor: list[psutil.Process] = field(default_factory=list)
    slots: list[psutil.Process] = field(default_factory=list)
    horses: list[psutil.Process] = field(default_factory=list)
    guards: list[psutil.Process] = field(default_factory=list)
    launchers: list[psutil.Process] = field(default_factory=list)
    ranks: list[psutil.Process] = field(default_factory=list)

    @property
    def worker(self) -> list[psutil.Process]:
        """What a person would call the worker: not the trainer, and not the guard beside it."""
        return [*self.supervisor, *self.slots, *self.horses]

    @property
    def everybody(self) -> list[psutil.Process]:
        return [*self.worker, *self.guards, *self.launchers, *self.ranks]


class Cluster:
    """Queue, server and workers on one base directory. `start` and `kill` name a part."""

    def __init__(
        self,
        base: Path,
        database_url: str = "",
        lease_s: float = LEASE_S,
        gpus: int = 2,
        stats_s: float = STATS_S,
    ) -> None:
        self.base, self.lease_s, self.gpus = base, lease_s, gpus
        base.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self.mark = secrets.token_hex(4)  # hosts of clusters beside us have other names, and other GPU locks
        self.proxies: dict[str, Proxy] = {}
        self.parts: dict[str, subprocess.Popen[bytes]] = {}
        self.fake_clock: Path | None = None
        socket = embedded.socket_path(base / "queue")
        self._queue = embedded.command(base / "queue", socket)
        self._environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("NANOCHAT_")},
            "NANOCHAT_BASE_DIR": str(base),
            "NANOCHAT_PORT": str(self.port),
            "NANOCHAT_DATABASE_URL": database_url,
            "NANOCHAT_REDIS_URL": f"unix://{socket}",
            "NANOCHAT_WORKER_TOKEN": TOKEN,
            "NANOCHAT_LEASE_S": str(lease_s),
            "NANOCHAT_GRACE_S": str(GRACE_S),
            "NANOCHAT_STATS_S": str(stats_s),
            "OMP_NUM_THREADS": "1",
        }

    # ------------------------------------------------------------ parts

    def start(self, name: str) -> None:
        """`queue`, `server`, or a worker: `worker`, `worker-b`."""
        command = self._queue if name == "queue" else [sys.executable, "-m", name.partition("-")[0]]
        log = (self.base / f"{name}.out").open("ab")
        self.parts[name] = subprocess.Popen(
            command,
            env=self._environment(name),
            cwd=repo_dir(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=processes.die_with_parent,  # a campaign that is killed leaves nothing behind
        )
        log.close()

    def host(self, name: str) -> str:
        """The host id of a worker."""
        return f"{name}-{self.mark}"

    def _environment(self, name: str) -> dict[str, str]:
        environ = dict(self._environ)
        if name.startswith("worker"):
            proxy = self.proxies.setdefault(name, Proxy(self.port))
            environ |= {
                "NANOCHAT_URL": proxy.url,
                "NANOCHAT_HOST_ID": self.host(name),
                "NANOCHAT_FAKE_GPUS": str(self.gpus),
            }
        if self.fake_clock is not None and name != "queue":
            environ |= {
                "LD_PRELOAD": str(LIBFAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self.fake_clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "PYTHONPATH": os.pathsep.join([str(FALSE_CLOCK), environ.get("PYTHONPATH", "")]),
            }
        return environ

    def kill(self, name: str) -> None:
        """SIGKILL to the part's own process, and wait for its end."""
        self.parts[name].kill()
        self.parts[name].wait()

    def up(self, *names: str) -> None:
        """Start parts that do not run, and wait until they work."""
        for name in names or ("queue", "server", "worker"):
            if name not in self.parts or self.parts[name].poll() is not None:
                self.start(name)
        self.ready(*[name for name in names if name.startswith("worker")])

    def down(self, *names: str) -> None:
        """Ask parts to leave, and wait until they have."""
        for name in names:
            process = self.parts[name]
            if process.poll() is None:
                process.terminate()
                process.wait(GRACE_S + 40)

    def set_clock(self, ahead_s: float) -> None:
        """What the clock of server and workers shows, against the true time (libfaketime)."""
        assert self.fake_clock is not None
        fresh = self.fake_clock.with_suffix(".tmp")
        fresh.write_text(f"{ahead_s:+.0f}\n")
        fresh.replace(self.fake_clock)

    def ready(self, *workers: str) -> None:
        eventually(lambda: self.get("/workers") is not None, READY_S)
        for worker in workers or [name for name in self.parts if name.startswith("worker")]:
            if self.parts[worker].poll() is None:
                eventually(lambda: self._alive(worker), READY_S)  # noqa: B023 - called at once

    def _alive(self, name: str) -> bool:
        found = (self.get("/workers") or {"items": []})["items"]
        return any(w["alive"] and w["host_id"] == self.host(name) for w in found)

    def stop(self) -> None:
        """Everything ends; nothing may be left."""
        for process in [p for p in self.parts.values() if p.poll() is None]:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
        for name in sorted(self.parts, key=lambda part: (not part.startswith("worker"), part == "queue")):
            process = self.parts[name]
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(GRACE_S + 40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        processes.kill(self.base)
        for proxy in self.proxies.values():
            proxy.close()
        self.http.close()

    # ------------------------------------------------------------ what lives

    def family(self, name: str = "worker") -> Family:
        """Who belongs to a worker right now."""
        found = Family()
        with suppress(psutil.Error):
            supervisor = psutil.Process(self.parts[name].pid)
            found.supervisor = [supervisor]
            found.slots = [p for p in supervisor.children() if "worker.slot" in _command(p)]
            for slot in found.slots:
                horses = slot.children()
                found.horses += horses
                for child in [c for horse in horses for c in _children(horse)]:
                    if "torch.distributed.run" in _command(child):
                        found.launchers.append(child)
                        found.ranks += [p for p in _children(child) if "scripts." in _command(p)]
                    elif "worker.slot" in _command(child):
                        found.guards.append(child)
        return found

    def trainers(self) -> dict[str, set[str]]:
        """Run → attempts of it that have a process."""
        found: dict[str, set[str]] = {}
        for environ in environments():
            if environ.get("NANOCHAT_BASE_DIR") == str(self.base) and "NANOCHAT_MARKER" in environ:
                run, attempt = environ.get("NANOCHAT_RUN_ID", ""), environ["NANOCHAT_MARKER"]
                found.setdefault(run, set()).add(attempt)
        return found

    # ------------------------------------------------------------ HTTP

    def get(self, path: str, **params: Any) -> Any:
        """The answer's JSON; None while the server is away."""
        try:
            answer = self.http.get(path, params=params)
        except httpx.HTTPError:
            return None
        return answer.json() if answer.is_success else None

    def post(self, path: str, body: Any = None) -> Any:
        answer = self.http.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(self.get(f"/runs/{run_id}") or {"state": "", "step": None})

    def until(self, run_id: str, *states: str, timeout_s: float = 240.0) -> dict[str, Any]:
        """The run once it is in one of `states`."""

        def look() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["state"] in states else None

        try:
            found = eventually(look, timeout_s, 0.05)
        except AssertionError:
            raise AssertionError(f"not {' or '.join(states)} but {self.run(run_id)}") from None
        assert found is not None
        return found


FALSE_CLOCK = Path(__file__).with_name("false_clock")
LIBFAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def wait_until(condition: Callable[[], object], timeout_s: float = 240.0, every_s: float = 0.01) -> None:
    eventually(lambda: bool(condition()), timeout_s, every_s)


def elapsed() -> Callable[[], float]:
    """Seconds since this call."""
    started = time.monotonic()
    return lambda: time.monotonic() - started


def _children(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return list(process.children())
    return []


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def environments() -> Iterator[dict[str, str]]:
    """Of every trainer's process that still has one; a zombie has none."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            raw = (entry / "environ").read_bytes()
            if b"NANOCHAT_MARKER=" in raw:
                pairs = (part.partition(b"=") for part in raw.split(b"\0"))
                yield {key.decode(): value.decode("utf-8", "replace") for key, _, value in pairs}
