"""Who may reach the service: addresses, Host, Origin, and the headers that browsers obey."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from nanochat_client.types.keys import KeyCreate, Scope
from server.__main__ import CannotStart, bootstrap_key, check_exposure
from server.keys import local
from server.settings import Settings
from tests.services import Service, free_port

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    "more", [{"host": "0.0.0.0"}, {"host": "::"}, {"allowed_hosts": "a.example"}, {"auth": "on"}]
)
def test_a_first_start_that_others_can_reach_asks_for_a_key(settings: Settings, more: dict[str, str]) -> None:
    asked = settings.model_copy(update=more)
    with pytest.raises(CannotStart, match="nanochat keys create --local"):
        check_exposure(asked)
    local.create(settings, KeyCreate(name="admin", scopes=[Scope.ADMIN]))
    check_exposure(asked)


def test_nothing_opens_a_reachable_service_to_everybody(settings: Settings) -> None:
    for more in ({"host": "0.0.0.0"}, {"allowed_hosts": "a.example"}):
        with pytest.raises(CannotStart, match="NANOCHAT_AUTH=auto"):
            check_exposure(settings.model_copy(update={"auth": "off", **more}))
    check_exposure(settings.model_copy(update={"auth": "off"}))


def test_the_key_file_of_a_container_is_enough(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    asked = settings.model_copy(update={"host": "0.0.0.0", "bootstrap_key_file": str(file)})
    check_exposure(asked)
    bootstrap_key(asked)
    running = Service(asked).start()
    try:
        assert running.client.get("/runs").status_code == 401
        headers = {"authorization": f"Bearer {file.read_text().strip()}", "host": "any.name.example"}
        assert running.client.get("/runs", headers=headers).status_code == 200
    finally:
        running.stop()


def test_it_really_refuses_to_start(tmp_path: Path, database_url: str) -> None:
    environ = {**os.environ, "NANOCHAT_BASE_DIR": str(tmp_path), "NANOCHAT_HOST": "0.0.0.0"}
    environ |= {"NANOCHAT_PORT": str(free_port()), "NANOCHAT_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "server"]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "nanochat keys create --local" in ended.stderr


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "[::2]"])
def test_a_name_that_is_not_ours_is_refused(service: Service, host: str) -> None:
    """DNS rebinding: a page elsewhere lets its own name point to this machine."""
    answer = service.client.get("/runs", headers={"host": host})
    assert answer.status_code == 403 and answer.json()["code"] == "forbidden_host"


def test_a_page_of_another_site_is_refused_also_on_websockets(service: Service) -> None:
    for origin in ("https://evil.example", "http://127.0.0.1.evil.example", "null"):
        answer = service.client.get("/runs", headers={"origin": origin})
        assert answer.status_code == 403 and answer.json()["code"] == "forbidden_origin"
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(f"{service.ws_url}/system/stream", origin=origin),
        ):  # type: ignore[arg-type]
            pass
        assert refused.value.response.status_code == 403
    with connect(f"{service.ws_url}/system/stream", origin="http://localhost:5173") as socket:  # type: ignore[arg-type]
        assert "welcome" in str(socket.recv(timeout=10))


def test_behind_a_proxy_its_name_is_ours_and_no_other(settings: Settings) -> None:
    update = {"allowed_hosts": "train.example", "allowed_origins": "https://notebook.example"}
    running = Service(settings.model_copy(update=update)).start()
    try:
        status = {
            (host, origin): httpx.get(
                f"{running.base_url}/healthz", headers={"host": host, "origin": origin}
            ).status_code
            for host in ("train.example", "other.example")
            for origin in ("https://train.example", "https://notebook.example", "https://other.example")
        }
        assert [key for key, value in status.items() if value == 200] == [
            ("train.example", "https://train.example"), ("train.example", "https://notebook.example"),
        ]  # fmt: skip
        asked = {"origin": "https://notebook.example", "access-control-request-method": "GET"}
        answer = httpx.options(f"{running.base_url}/runs", headers=asked | {"host": "train.example"})
        assert answer.headers["access-control-allow-origin"] == "https://notebook.example"
    finally:
        running.stop()


def test_without_allowed_origins_nothing_is_shared_with_other_sites(service: Service) -> None:
    answer = service.client.get("/healthz", headers={"origin": "http://localhost:5173"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_every_answer_carries_the_headers_that_protect_a_browser(service: Service) -> None:
    for path in ("/ui/", "/docs", "/runs", "/runs/none", "/nothing", "/metrics"):
        headers = service.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy and "script-src" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_docs_come_from_here_alone(service: Service) -> None:
    page = service.client.get("/docs").text
    assert "http:" not in page and "https:" not in page and "<script>" not in page
    for path in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
        assert f"/docs/{path}" in page and service.client.get(f"/docs/{path}").status_code == 200
    for path in ("__init__.py", "../app.py", "LICENSE", "%2e%2e/app.py", "index.html"):
        assert service.client.get(f"/docs/{path}").status_code == 404


def test_a_body_that_is_too_large_is_refused_whether_it_says_its_size_or_not(service: Service) -> None:
    huge = b'{"stage": "' + b"x" * 1_100_000 + b'"}'
    headers = {"content-type": "application/json"}
    for body in (huge, iter([huge[:600_000], huge[600_000:]])):
        answer = service.client.post("/runs", content=body, headers=headers)
        assert answer.status_code == 413 and answer.headers["content-type"].startswith("application/problem")
