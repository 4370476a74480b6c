"""The service behind a real nginx and a real Caddy with our examples: names, WebSockets, events, bodies."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from socket import create_connection

import httpx
import pytest
from websockets.sync.client import connect

from nanochat_client.types.keys import USER, KeyCreate
from server.keys import local
from server.settings import Settings
from tests.deploy import caddy, nginx
from tests.deploy.nginx import NAME
from tests.services import Service, eventually

sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
EACH = [
    pytest.param(proxy, marks=proxy.NEEDED, id=proxy.__name__.rpartition(".")[2]) for proxy in (nginx, caddy)
]


@pytest.fixture
def behind(settings: Settings) -> Iterator[Service]:
    running = Service(settings.model_copy(update={"allowed_hosts": NAME})).start()
    yield running
    running.stop()


@pytest.fixture(params=EACH)
def proxy(request: pytest.FixtureRequest, behind: Service, tmp_path: Path) -> Iterator[int]:
    """The port of a proxy in front of this service."""
    (place := tmp_path / "proxy").mkdir()
    with request.param.running(place, behind.base_url) as port:
        yield port


@sqlite
def test_pages_streams_and_keys_work_through_a_proxy(behind: Service, proxy: int) -> None:
    key = local.create(behind.settings, KeyCreate(name="ada", scopes=list(USER)))
    bearer = {"authorization": f"Bearer {key}"}
    here = f"{NAME}:{proxy}"
    with httpx.Client(
        base_url=f"http://127.0.0.1:{proxy}", headers={"host": here, **bearer}, timeout=20
    ) as client:
        run = client.post("/runs", json={"stage": "tokenizer"}, headers={"origin": f"http://{here}"}).json()
        assert client.get("/runs", headers={"origin": "https://evil.example"}).status_code == 403
        with client.stream("GET", f"/runs/{run['id']}/stream?channels=state") as stream:
            lines = stream.iter_lines()  # held: a generator that is dropped closes its connection
            first = next(filter(None, lines))
            assert first.startswith("data: "), "an event arrives while the stream goes on"
            assert streams(behind) == 1
    eventually(lambda: streams(behind) == 0)  # who has left is seen leaving
    assert httpx.get(f"http://127.0.0.1:{proxy}/runs", headers={"host": here}).status_code == 401
    with connect(
        f"ws://{here}/runs/{run['id']}/stream?channels=state",
        sock=create_connection(("127.0.0.1", proxy)),  # the name leads nowhere
        additional_headers={**bearer},
        origin=f"http://{here}",  # type: ignore[arg-type]
    ) as socket:
        assert '"welcome"' in str(socket.recv(timeout=10))
        socket.send('{"op":"ping"}')
        assert any('"pong"' in str(socket.recv(timeout=10)) for _ in range(5))


def streams(service: Service) -> int:
    """Answers that go on, in the server itself."""
    return len(service._server.server_state.tasks)


@sqlite
def test_no_client_says_to_a_proxy_how_it_has_come(behind: Service, proxy: int) -> None:
    """The cookie is `Secure` when the proxy was spoken to over TLS, not when a header says so."""
    key = local.create(behind.settings, KeyCreate(name="ada", scopes=list(USER)))
    url, headers = f"http://127.0.0.1:{proxy}", {"host": f"{NAME}:{proxy}"}
    forged = {**headers, "x-forwarded-proto": "https", "x-forwarded-host": "evil.example"}
    answer = httpx.post(f"{url}/login", json={"key": key}, headers=forged)
    assert answer.status_code == 200 and "secure" not in answer.headers["set-cookie"].lower()
    assert "evil.example" not in str(httpx.get(f"{url}/ui", headers=forged).headers)
    other = {"host": "other.example.com", "authorization": f"Bearer {key}"}
    assert "items" not in httpx.get(f"{url}/runs", headers=other).text
    direct = httpx.post(
        f"{behind.base_url}/login", json={"key": key}, headers={"host": NAME, "x-forwarded-proto": "https"}
    )
    assert "secure" in direct.headers["set-cookie"].lower(), "as a proxy says it over TLS"


@caddy.NEEDED
def test_caddy_understands_the_file_as_it_is(tmp_path: Path) -> None:
    command = ["caddy", "validate", "--config", str(caddy.EXAMPLE), "--adapter", "caddyfile"]
    ended = subprocess.run(
        command, env=caddy.environment(tmp_path), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
