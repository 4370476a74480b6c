"""The service behind a real nginx with our example: names, WebSockets, server-sent events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from nanochat_client.types.keys import USER, KeyCreate
from server.keys import local
from server.settings import Settings
from tests.deploy import nginx
from tests.deploy.nginx import NAME
from tests.services import Service

pytestmark = [
    nginx.NEEDED,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


@pytest.fixture
def behind(settings: Settings) -> Iterator[Service]:
    running = Service(settings.model_copy(update={"allowed_hosts": NAME})).start()
    yield running
    running.stop()


@pytest.fixture
def proxy(behind: Service, tmp_path: Path) -> Iterator[int]:
    """The port of nginx in front of this service."""
    with nginx.running(tmp_path, behind.base_url) as port:
        yield port


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
