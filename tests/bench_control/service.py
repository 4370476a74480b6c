"""A real server process on a database with runs in it, for the benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from sqlalchemy import delete

from server import migrate
from server.db import Database
from server.models import Attempt, Run, now
from server.settings import Settings
from tests.services import WORKER_TOKEN, Postgres, free_port
from tests.services import valkey as valkey_server

FENCE = 1


class Server:
    """`python -m server` on a fresh database. `runs`: ids of runs that are being trained by nobody."""

    def __init__(
        self, home: Path, database_url: str, runs: int = 0, redis_url: str = "", **environ: str
    ) -> None:
        self.home, self.port = home, free_port()
        self.settings = Settings(base_dir=home, database_url=database_url)
        self.runs = [f"r{number:09d}" for number in range(runs)]
        self._environ = {
            **os.environ, "NANOCHAT_BASE_DIR": str(home), "NANOCHAT_PORT": str(self.port),
            "NANOCHAT_DATABASE_URL": database_url, "NANOCHAT_LOG_LEVEL": "warning",
            "NANOCHAT_WORKER_TOKEN": WORKER_TOKEN, "NANOCHAT_REDIS_URL": redis_url or "redis://127.0.0.1:1/0",
            "NANOCHAT_LEASE_S": "86400", **environ,
        }  # fmt: skip

    def __enter__(self) -> Server:
        asyncio.run(self._fill())
        self.process = subprocess.Popen([sys.executable, "-m", "server"], env=self._environ)
        self._wait()
        return self

    def _wait(self) -> None:
        """The socket listens before the server is loaded: only an answer counts."""
        for _ in range(300):
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).is_success:
                    return
            time.sleep(0.1)
        raise RuntimeError("the server did not start")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)

    def clear(self) -> None:
        """Stop the server and forget its runs, so that the next one on this database begins anew."""
        self.process.terminate()
        self.process.wait(20)

        async def delete_all() -> None:
            db = Database(self.settings.sqlalchemy_url)
            async with db.write() as session:
                await session.execute(delete(Run))
            await db.close()

        asyncio.run(delete_all())

    def rss(self) -> int:
        """Bytes the server process holds."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def cpu_s(self) -> float:
        """CPU seconds the server process has used."""
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)

    async def _fill(self) -> None:
        url = self.settings.sqlalchemy_url
        await asyncio.to_thread(migrate.upgrade, url)
        db = Database(url)
        async with db.write() as session:
            for number, run_id in enumerate(self.runs):
                run = a_run(run_id, "running", number)
                run.attempt = 1
                session.add(run)
                await session.flush()
                session.add(
                    Attempt(id=attempt_of(run_id), run_id=run_id, number=1, state="running", fence=FENCE,
                            beat_at=now(), started_at=now())
                )  # fmt: skip
        await db.close()


def a_run(run_id: str, state: str, number: int = 0) -> Run:
    """A run as `POST /runs` would store it, already in `state`."""
    config = {"depth": 4, "device_batch_size": 4, "max_seq_len": 512, "num_iterations": 1000, "processes": 1}
    return Run(
        id=run_id, stage="base", name=f"bench {number}", state=state, config=config, gpus=0, restarts_left=0,
        summary={"train/loss": 2.5, "train/tok_per_sec": 40_000.0, "val/bpb": 1.1}, step=100, steps=1000,
    )  # fmt: skip


def attempt_of(run_id: str) -> str:
    return "a" + run_id[1:]


@contextlib.contextmanager
def database(kind: str, home: Path) -> Iterator[str]:
    """The URL of an empty database; PostgreSQL as it comes, durable."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(dir=home) as directory:
            yield f"sqlite:///{directory}/nanochat.db"
        return
    server = Postgres(f"bench-{os.getpid()}", durable=True)
    try:
        with server.database(migrated=False) as url:
            yield url
    finally:
        server.close()


valkey = valkey_server
