"""Fixtures that every room shares.

`database_url` runs a test on SQLite and on PostgreSQL; where the database does not matter, say
`@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)`.
"""

from __future__ import annotations

import os
import signal

# a shell's background jobs, and what CI starts so, ignore SIGINT, and every program they start would too
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# tests share the cores: two torch threads that wait for each other collapse beside another process
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything imports torch

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from server.settings import Settings
from tests import services
from tests.services import WORKER_TOKEN, Postgres, Service

#: one campaign of faults for each database, one network of hosts
GROUPED = re.compile(r"^(tests/faults/).*-(sqlite|postgresql)\]$|^(tests/hosts/).*$")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A campaign's tests share a worker, because it takes a while to make; all others go where there is time.

    What `--dist loadgroup` is for; but pytest 9.2 drops what pytest-xdist 3.8 adds to the ids.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return GROUPED.sub(r"\1\2\3", nodeid)

    return ByGroup(config, log)


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What every test inherits. The engine's C is compiled once for all, not for each base directory."""
    place = tmp_path_factory.getbasetemp()
    shared = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    for _ in services.clean_environment():
        os.environ["NANOCHAT_KERNEL_DIR"] = str(shared / "kernels")
        yield
        del os.environ["NANOCHAT_KERNEL_DIR"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The test run's PostgreSQL: one for all xdist workers."""
    server = Postgres(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid())))
    yield server
    server.close()


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A real Valkey, one per xdist worker."""
    with services.valkey() as url:
        yield url


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """The Valkey, emptied."""
    import redis

    with redis.Redis.from_url(valkey_url) as connection:
        connection.flushall()
    return valkey_url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return services.sqlite_template(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, sqlite_template: Path, tmp_path: Path) -> Iterator[str]:
    """A fresh, migrated database of the test's own."""
    if request.param == "sqlite":
        yield services.copy_sqlite(sqlite_template, tmp_path)
        return
    with request.getfixturevalue("postgres").database() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path, database_url: str, redis_url: str) -> Settings:
    """Settings of a server in a directory of its own, with short leases."""
    return Settings(
        base_dir=tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        worker_token=SecretStr(WORKER_TOKEN),
        lease_s=3.0,
    )


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    """The running server."""
    running = Service(settings).start()
    yield running
    running.stop()


@pytest.fixture
def client(service: Service) -> httpx.Client:
    """A user's HTTP client for `service`."""
    return service.client
