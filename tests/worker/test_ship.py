"""Shipping: every byte once, whatever the server says in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services import eventually
from worker import ship
from worker.api import Away, Refused
from worker.ship import NodeShipper, Shipper


class Server:
    """The server's side of the contract: appends what is new, refuses gaps; can be away or fence."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {"log": b"", "events": b""}
        self.away = 0
        self.fenced = False

    def ship(self, attempt_id: str, fence: int, kind: str, offset: int, data: bytes, heir: str | None) -> int:
        if self.fenced:
            raise Refused(409, "stale_fence", "somebody else has it")
        if self.away:
            self.away -= 1
            raise Away("no answer")
        have = self.held[kind]
        if offset > len(have):
            raise Refused(409, "offset_gap", "bytes are missing", nearest=len(have))
        self.held[kind] = have + data[len(have) - offset :]
        return len(self.held[kind])


def shipper(server: Server, directory: Path, log_acked: int = 0) -> Shipper:
    return Shipper(server, "a1", 1, directory, log_acked, 0)  # type: ignore[arg-type]


def test_what_was_written_is_what_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "CHUNK_BYTES", 1000)
    (tmp_path / "run.log").write_bytes(bytes(range(256)) * 50)
    (tmp_path / "events.jsonl").write_text('{"kind": "phase"}\n' * 300)
    server = Server()
    server.away = 2
    thread = shipper(server, tmp_path)
    thread.start()
    thread.finish()
    thread.join(20)
    assert server.held["log"] == (tmp_path / "run.log").read_bytes()
    assert server.held["events"] == (tmp_path / "events.jsonl").read_bytes()


def test_a_further_nodes_log_goes_line_by_line_and_its_last_one_at_the_end(tmp_path: Path) -> None:
    sent: list[bytes] = []

    class Members(Server):
        def ship_node(self, member_id: str, offset: int, data: bytes) -> int:
            sent.append(data)
            return self.ship(member_id, 0, "log", offset, data, None)

    (tmp_path / "run.log").write_bytes(b"one\ntwo\nthr")
    server = Members()
    thread = NodeShipper(server, "m1", tmp_path)  # type: ignore[arg-type]
    thread.start()
    eventually(lambda: server.held["log"] == b"one\ntwo\n")
    with (tmp_path / "run.log").open("ab") as file:
        file.write(b"ee\nfour")
    eventually(lambda: server.held["log"] == b"one\ntwo\nthree\n")
    thread.finish()
    thread.join(20)
    assert sent == [b"one\ntwo\n", b"three\n", b"four"] and thread.complete


def test_an_unfinished_event_line_waits_for_its_end(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"kind": "phase"}\n{"kind": "met')
    server = Server()
    thread = shipper(server, tmp_path)
    thread.start()
    thread.finish()
    thread.join(20)
    assert server.held["events"] == b'{"kind": "phase"}\n'


def test_an_endless_event_line_does_not_block_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship, "CHUNK_BYTES", 1000)
    (tmp_path / "events.jsonl").write_text("x" * 2500 + '\n{"kind": "phase"}\n')
    server = Server()
    thread = shipper(server, tmp_path)
    thread.start()
    thread.finish()
    thread.join(20)
    assert server.held["events"] == (tmp_path / "events.jsonl").read_bytes()


def test_a_server_that_holds_less_than_we_thought_gets_the_rest(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_bytes(b"0123456789")
    server = Server()
    thread = shipper(server, tmp_path, log_acked=6)
    thread.start()
    thread.finish()
    thread.join(20)
    assert server.held["log"] == b"0123456789"


def test_a_refused_fence_ends_it(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_bytes(b"late")
    server = Server()
    server.fenced = True
    thread = shipper(server, tmp_path)
    thread.start()
    thread.join(20)
    assert thread.fenced.is_set() and server.held["log"] == b""
