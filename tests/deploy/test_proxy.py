"""The service behind a real nginx with our example: names, WebSockets, server-sent events."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from nanochat.paths import repo_dir
from nanochat_client.types.keys import USER, KeyCreate
from server.keys import local
from server.settings import Settings
from tests.services import Service, eventually, free_port

pytestmark = [
    pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx"),
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]
NAME = "train.example.com"


@pytest.fixture
def behind(settings: Settings) -> Iterator[Service]:
    running = Service(settings.model_copy(update={"allowed_hosts": NAME})).start()
    yield running
    running.stop()


@pytest.fixture
def proxy(behind: Service, tmp_path: Path) -> Iterator[int]:
    """The port of nginx with the example: without TLS, on a free port, in front of this service."""
    port = free_port()
    text = (repo_dir() / "deploy" / "proxy" / "nginx.conf").read_text()
    text = re.sub(r"server \{\n    listen 80;.*?\n\}\n", "", text, flags=re.DOTALL)
    text = re.sub(r"    ssl_\w+ .*\n", "", text).replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
    text = text.replace("127.0.0.1:8000", behind.base_url.removeprefix("http://"))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {tmp_path / kind};" for kind in kinds)
    config = tmp_path / "nginx.conf"
    config.write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; {paths}\n{text}\n}}\n"
    )
    process = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(config)], stderr=subprocess.PIPE)
    try:
        eventually(lambda: process.poll() is None and answers(port), timeout_s=15)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=10)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", headers={"host": NAME}).status_code == 200
    except httpx.TransportError:
        return False


def test_pages_streams_and_keys_work_through_nginx(behind: Service, proxy: int) -> None:
    key = local.create(behind.settings, KeyCreate(name="ada", scopes=list(USER)))
    bearer = {"authorization": f"Bearer {key}"}
    here = f"{NAME}:{proxy}"
    with httpx.Client(
        base_url=f"http://127.0.0.1:{proxy}", headers={"host": here, **bearer}, timeout=20
    ) as client:
        run = client.post("/runs", json={"stage": "tokenizer"}, headers={"origin": f"http://{here}"}).json()
        assert client.get("/runs", headers={"origin": "https://evil.example"}).status_code == 403
        with client.stream("GET", f"/runs/{run['id']}/stream?channels=state") as stream:
            first = next(line for line in stream.iter_lines() if line)
            assert first.startswith("data: "), "an event arrives while the stream goes on"
    assert httpx.get(f"http://127.0.0.1:{proxy}/runs", headers={"host": here}).status_code == 401
    with connect(
        f"ws://127.0.0.1:{proxy}/runs/{run['id']}/stream?channels=state",
        additional_headers={**bearer},
        origin=f"http://127.0.0.1:{proxy}",  # type: ignore[arg-type]
    ) as socket:
        assert '"welcome"' in str(socket.recv(timeout=10))
        socket.send('{"op":"ping"}')
        assert any('"pong"' in str(socket.recv(timeout=10)) for _ in range(5))
