"""Downloads go on where they broke off, are checked, and appear whole or not at all."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nanochat.errors import DataError
from nanochat.sources import hub

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Hub(ThreadingHTTPServer):
    """Redirects like the hub; can drop connections, answer errors and lie about the content."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.drops = 0
        self.errors: list[int] = []
        self.damaged = 0
        self.ranges: list[str] = []
        self.tokens: list[str | None] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        hub_ = self.server
        self.server.tokens.append(self.headers.get("Authorization"))
        if self.path.startswith("/datasets/"):
            hub_.paths.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"{hub_.url}/storage{self.path}")
            self.send_header("X-Linked-ETag", f'"{SHA256}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if hub_.errors:
            self.send_error(hub_.errors.pop(0))
            return
        wanted = self.headers.get("Range", "")
        hub_.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        if hub_.damaged:
            hub_.damaged -= 1
            body = bytes(reversed(body))
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if hub_.drops:
            hub_.drops -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(server: Hub, tmp_path: Path, tries: int = 5) -> Path:
    target = tmp_path / "shard.parquet"
    hub.fetch_file(f"{server.url}/datasets/x/resolve/main/shard.parquet", target, tries, wait_s=0.0)
    return target


def test_a_connection_that_breaks_twice_costs_only_the_rest(server: Hub, tmp_path: Path) -> None:
    server.drops = 2
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["", "bytes=1500000-", "bytes=2250000-"]
    assert [file.name for file in tmp_path.iterdir()] == ["shard.parquet"]


def test_a_server_error_is_tried_again(server: Hub, tmp_path: Path) -> None:
    server.errors = [503, 500]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_again_from_its_start(server: Hub, tmp_path: Path) -> None:
    server.damaged = 1
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["", ""]


def test_a_file_that_stays_damaged_never_appears(server: Hub, tmp_path: Path) -> None:
    server.damaged = 9
    with pytest.raises(DataError, match="checksum"):
        fetch(server, tmp_path, tries=2)
    assert not (tmp_path / "shard.parquet").exists()


def test_a_part_longer_than_the_file_is_thrown_away(server: Hub, tmp_path: Path) -> None:
    (tmp_path / "shard.parquet.part").write_bytes(CONTENT + b"more")
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_missing_file_is_not_asked_for_again_and_again(server: Hub, tmp_path: Path) -> None:
    server.errors = [404] * 5
    with pytest.raises(DataError, match="404"):
        fetch(server, tmp_path)
    assert len(server.errors) == 4


def test_without_a_network_the_message_says_what_works(tmp_path: Path, server: Hub) -> None:
    closed = "http://127.0.0.1:9/datasets/x"
    with pytest.raises(DataError, match="pydocs"):
        hub.fetch_file(closed, tmp_path / "x", tries=2, wait_s=0.0)


def test_the_token_stays_with_the_hub_and_does_not_follow_a_redirect(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fetch(server, tmp_path)
    assert server.tokens == ["Bearer hf_secret", None]


def test_the_validation_shard_is_the_last_one_however_many_are_fetched(server: Hub, tmp_path: Path) -> None:
    corpus = hub.CORPORA["fineweb-edu"]
    hub.download(corpus, tmp_path, 2, workers=2, say=lambda text: None, wait_s=0.0)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["shard_00000.parquet", "shard_00001.parquet", "shard_01822.parquet"]
    before = len(server.paths)
    hub.download(corpus, tmp_path, 3, workers=2, say=lambda text: None, wait_s=0.0)
    assert [path.rpartition("/")[2] for path in server.paths[before:]] == ["shard_00002.parquet"]
