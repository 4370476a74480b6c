"""docker-compose.yml and what it starts. There is no engine here: images are not built, but the file is
checked by Compose itself, and the very commands of its services run against real PostgreSQL and Valkey."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from nanochat.paths import repo_dir
from tests.services import eventually, free_port

ROOT = repo_dir()
COMPOSE = ROOT / "docker-compose.yml"
OURS = ("migrate", "metrics-key", "server", "worker-cpu", "worker-gpu")
ONE_SHOTS = ("migrate", "metrics-key")


def tool(name: str) -> str:
    """A program of the development tools."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"needs {name}: `make test` installs it")
    return found


def run(*command: str, **environ: str) -> str:
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def env_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What docker/make_env.py writes."""
    file = tmp_path_factory.mktemp("compose") / ".env"
    run(sys.executable, "docker/make_env.py", str(file))
    return file


@pytest.fixture(scope="module")
def services(env_file: Path) -> dict[str, Any]:
    """The services of every profile, as Compose reads them."""
    command = [tool("docker-compose"), "--env-file", str(env_file), "-f", str(COMPOSE), "--profile", "*"]
    read: dict[str, Any] = json.loads(run(*command, "config", "--format", "json"))
    return dict(read["services"])


def test_secrets_are_written_once_and_for_their_owner_only(env_file: Path) -> None:
    assert env_file.stat().st_mode & 0o777 == 0o600
    again = subprocess.run([sys.executable, ROOT / "docker" / "make_env.py", env_file], capture_output=True)
    assert again.returncode == 1
    values = [line.partition("=")[2] for line in env_file.read_text().splitlines()]
    assert len(set(values)) == len(values) and min(map(len, values)) >= 32


def test_without_secrets_nothing_starts(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    command = [
        tool("docker-compose"),
        "--env-file",
        str(tmp_path / "empty"),
        "-f",
        str(COMPOSE),
        "config",
        "-q",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0 and "docker/make_env.py" in ended.stderr


def test_the_file_is_what_the_specification_says() -> None:
    run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE))


def test_the_dockerfiles_pass_hadolint() -> None:
    run(tool("hadolint"), "docker/Dockerfile.server", "docker/Dockerfile.worker")


def test_profiles_start_what_they_are_named_for(services: dict[str, Any]) -> None:
    profiles = {name: tuple(service.get("profiles", ())) for name, service in services.items()}
    assert {name for name, given in profiles.items() if not given} == {
        "postgres",
        "valkey",
        "migrate",
        "server",
    }
    assert profiles["worker-cpu"] == ("cpu",) and profiles["worker-gpu"] == ("gpu",)
    assert {name for name, given in profiles.items() if given == ("observability",)} == {
        "metrics-key", "prometheus", "grafana",
    }  # fmt: skip
    devices = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["driver"] == "nvidia" and devices[0]["capabilities"] == ["gpu"]


def test_no_container_is_root_writes_its_image_or_takes_all_there_is(services: dict[str, Any]) -> None:
    for dockerfile in ("Dockerfile.server", "Dockerfile.worker"):
        assert "\nUSER 10001:10001\n" in (ROOT / "docker" / dockerfile).read_text()
    for name, service in services.items():
        user = str(service.get("user", "10001" if name in OURS else ""))
        assert user and not user.startswith("0") and user != "root", name
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert ("healthcheck" in service) == (name not in ONE_SHOTS), name
        assert not service.get("privileged") and "latest" not in service["image"], name
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or volume.get("read_only"), (name, volume)


def test_only_this_machine_reaches_the_published_ports(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if service.get("ports")}
    assert set(published) == {"server", "grafana"}
    assert {port["host_ip"] for ports in published.values() for port in ports} == {"127.0.0.1"}
    assert set(services["postgres"]["networks"]) == set(services["valkey"]["networks"]) == {"back"}


class Here:
    """Compose's services as processes of this machine: their commands, their environment, other addresses."""

    def __init__(self, services: dict[str, Any], place: Path, database_url: str, redis_url: str) -> None:
        self.services, self.place, self.port = services, place, free_port()
        self._urls = {"NANOCHAT_DATABASE_URL": database_url, "NANOCHAT_REDIS_URL": redis_url}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _at_home(self, text: str) -> str:
        text = text.replace("http://server:8000", self.url).replace(
            "127.0.0.1:8000", f"127.0.0.1:{self.port}"
        )
        return re.sub(r"^/(data|keys|tmp)\b", str(self.place) + r"/\1", text)

    def command(self, service: str) -> list[str]:
        return self._here(self.services[service]["command"])

    def health(self, service: str) -> list[str]:
        kind, *command = self.services[service]["healthcheck"]["test"]
        assert kind == "CMD"
        return self._here(command)

    def environ(self, service: str) -> dict[str, str]:
        """What the container would see, and nothing of this shell."""
        given = {
            name: self._at_home(str(value)) for name, value in self.services[service]["environment"].items()
        }
        if "NANOCHAT_PORT" in given:
            given |= {"NANOCHAT_PORT": str(self.port)}
        coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.place),
            **coverage,
            **given,
            **self._urls,
        }

    def once(self, service: str) -> str:
        return run_in(self.command(service), self.environ(service))

    def check(self, service: str) -> None:
        run_in(self.health(service), self.environ(service))

    @contextmanager
    def running(self, service: str) -> Iterator[subprocess.Popen[str]]:
        with (self.place / f"{service}.log").open("w") as log:
            process = subprocess.Popen(
                self.command(service), cwd=ROOT, env=self.environ(service), stdout=log, stderr=log, text=True
            )
            try:
                yield process
            finally:
                process.terminate()
                process.wait(timeout=60)

    def _here(self, command: list[str]) -> list[str]:
        return [sys.executable if part == "python" else self._at_home(part) for part in command]


def run_in(command: list[str], environ: dict[str, str]) -> str:
    ended = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture
def here(
    services: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest, redis_url: str
) -> Iterator[Here]:
    for name in ("data", "keys", "tmp"):
        (tmp_path / name).mkdir()
    with request.getfixturevalue("postgres").database(migrated=False) as database_url:
        yield Here(services, tmp_path, database_url, redis_url)


def test_the_commands_of_the_services_run_and_find_each_other(here: Here) -> None:
    assert "database is at revision" in here.once("migrate")
    here.once("metrics-key")
    metrics_key = (here.place / "keys" / "metrics.key").read_text().strip()
    with ExitStack() as stack:
        server = stack.enter_context(here.running("server"))
        log = here.place / "server.log"

        def ready() -> bool:
            assert server.poll() is None, log.read_text()
            try:
                return httpx.get(f"{here.url}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, timeout_s=60, every_s=0.1)
        here.check("server")
        admin_key = (here.place / "data" / "admin.key").read_text().strip()
        assert httpx.get(f"{here.url}/runs").status_code == 401
        with httpx.Client(base_url=here.url, headers={"authorization": f"Bearer {admin_key}"}) as admin:
            worker = stack.enter_context(here.running("worker-cpu"))
            listed = eventually(lambda: admin.get("/workers").json()["items"], timeout_s=60, every_s=0.1)
            assert [item["alive"] for item in listed] == [True] and worker.poll() is None
            here.check("worker-cpu")
            assert here.command("worker-gpu") == here.command("worker-cpu")
        headers = {"authorization": f"Bearer {metrics_key}"}
        assert httpx.get(f"{here.url}/keys", headers=headers).status_code == 403
        exposed = httpx.get(f"{here.url}/metrics", headers=headers).text
        assert asked_for() - set(re.findall(r"^# TYPE (\w+)", exposed, re.MULTILINE)) == set()
        for secret in (admin_key, metrics_key, here.environ("server")["NANOCHAT_WORKER_TOKEN"]):
            assert secret not in log.read_text() + (here.place / "worker-cpu.log").read_text()


def asked_for() -> set[str]:
    """The metrics that our dashboard and our alerts are made of."""
    board = json.loads((ROOT / "docker/grafana/dashboards/nanochat.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked.append((ROOT / "docker" / "alerts.yml").read_text())
    names = set(re.findall(r"\bnanochat_[a-z_0-9]+", " ".join(asked)))
    assert len(names) > 15
    return {name.removesuffix("_bucket") for name in names}
