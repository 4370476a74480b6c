"""Files of one's own: progress, going on after a broken connection, what is refused, the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanochat_client import Conflict, ConnectionFailed, Invalid, NotFound, upload
from server.files import receive
from tests.client.conftest import Cli, Either, Relay
from tests.server.fake_worker import post_run
from tests.server.files.uploads import GOOD, conversations
from tests.services import Service

PART = 100_000


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """A megabyte of conversations, in a file with a name of its own kind."""
    (tmp_path / "here").mkdir()
    file = tmp_path / "here" / "My Talk.JSONL"
    file.write_bytes(conversations(1_000_000))
    return file


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PART_BYTES", PART)
    monkeypatch.setattr(upload, "PAUSE_S", 0.01)


class Told(list[tuple[int, int]]):
    def __call__(self, here: int, whole: int) -> None:
        self.append((here, whole))


def send(client: Either, file: Path, **options: Any) -> Any:
    """`client.files.upload`, awaited where that has to be."""
    found = client._client.files.upload(file, **options)
    return client._run(found) if hasattr(found, "__await__") else found


def call(client: Either, name: str, *args: Any, **options: Any) -> Any:
    found = getattr(client._client.files, name)(*args, **options)
    return client._run(found) if hasattr(found, "__await__") else found


def test_an_upload_tells_its_progress_and_ends_where_runs_find_it(
    either: Either, talk: Path, service: Service
) -> None:
    told = Told()
    file = send(either, talk, progress=told)
    size = talk.stat().st_size
    assert (file.name, file.kind, file.state) == ("my-talk.jsonl", "conversations", "ready")
    assert told[0] == (0, size) and told[-1] == (size, size) and told == sorted(told)
    assert len(told) == 1 + -(-size // PART)
    assert (service.settings.base_dir / file.path).read_bytes() == talk.read_bytes()
    assert call(either, "get", file.id) == file
    assert [one.id for one in call(either, "__call__", kind="conversations").items] == [file.id]
    assert send(either, talk).id == file.id, "it is there already"
    call(either, "delete", file.id)
    with pytest.raises(NotFound):
        call(either, "get", file.id)


def test_a_broken_connection_costs_nothing_that_came(
    connect: Callable[[str], Either], relay: Relay, talk: Path, service: Service
) -> None:
    cuts = [250_000, 600_000]
    seen = Told()

    def cut(here: int, whole: int) -> None:
        seen(here, whole)
        if cuts and here > cuts[0]:
            cuts.pop(0)
            relay.cut()
            relay.refuse = 1

    file = send(connect(relay.url), talk, progress=cut)
    assert (service.settings.base_dir / file.path).read_bytes() == talk.read_bytes()
    assert not cuts and seen == sorted(seen) and len(seen) <= 3 + talk.stat().st_size // PART


def test_a_connection_that_breaks_within_a_part_goes_on_from_there(
    connect: Callable[[str], Either],
    relay: Relay,
    talk: Path,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(upload, "PART_BYTES", 10**9)
    monkeypatch.setattr(receive, "SYNC_BYTES", 200_000)
    plain, cuts = receive.Part.write, [1]

    def cut(self: Any, data: bytes) -> None:
        plain(self, data)
        if cuts:
            cuts.pop()
            relay.cut()

    monkeypatch.setattr(receive.Part, "write", cut)
    told = Told()
    file = send(connect(relay.url), talk, progress=told)
    assert (service.settings.base_dir / file.path).read_bytes() == talk.read_bytes()
    assert not cuts and told[1][0] > 0, told


def test_another_program_goes_on_where_the_first_one_stopped(either: Either, talk: Path) -> None:
    class Killed(Exception): ...

    def stop(here: int, whole: int) -> None:
        if here > 400_000:
            raise Killed

    with pytest.raises(Killed):
        send(either, talk, progress=stop)
    told = Told()
    assert send(either, talk, progress=told).state == "ready"
    assert told[0][0] > 400_000


def test_a_service_that_stays_away_is_said(
    connect: Callable[[str], Either], relay: Relay, talk: Path
) -> None:
    def away(here: int, whole: int) -> None:
        if here > 200_000:
            relay.refuse = 1000
            relay.cut()

    with pytest.raises(ConnectionFailed):
        send(connect(relay.url), talk, progress=away)


def test_what_is_refused_says_why(either: Either, talk: Path, service: Service) -> None:
    talk.write_bytes(GOOD + b"broken\n")
    with pytest.raises(Invalid, match=r"my-talk\.jsonl, line 2") as refused:
        send(either, talk)
    assert refused.value.code == "rejected"
    talk.write_bytes(GOOD)
    file = send(either, talk)
    talk.write_bytes(GOOD + GOOD)
    with pytest.raises(Conflict, match=file.id):
        send(either, talk)
    with pytest.raises(Invalid) as named:
        send(either, talk, name="../x.jsonl")
    assert named.value.errors[0].pointer == "/name"
    unnamed = talk.with_name("语料.jsonl")
    unnamed.write_bytes(GOOD)
    with pytest.raises(Invalid, match="give `name`"):
        send(either, unnamed)
    unnamed.write_bytes(b"")
    with pytest.raises(Invalid, match="is empty"):
        send(either, unnamed, name="a.jsonl")
    run = post_run(service, stage="sft", overrides={"tasks": file.path})
    with pytest.raises(Conflict, match=run["id"]) as used:
        call(either, "delete", file.id)
    assert used.value.code == "in_use"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", b"x", "text"),
        ("a.MD", b"x", "text"),
        ("a.py", b"depth = 1", "preset"),
        ("a.json", b"{}", "preset"),
        ("a.jsonl", b'\n{"text": "x"}', "text"),
        ("a.jsonl", GOOD, "conversations"),
        ("a.jsonl", b"[]", "conversations"),
        ("a.jsonl", b"\xff" * 10, "conversations"),
        ("a.jsonl", b"", "conversations"),
    ],
)
def test_a_kind_is_guessed_from_the_ending_and_the_first_line(
    name: str, content: bytes, kind: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert upload.guess_kind(tmp_path / name) == kind


def test_the_command_line_uploads_lists_and_deletes(cli: Cli, talk: Path) -> None:
    text = talk.with_name("prose.txt")
    text.write_text("Some text.\n")
    status, out, err = cli("files", "upload", str(talk), str(text))
    assert (status, err) == (0, "")
    assert (
        "files/conversations/my-talk.jsonl" in out and "--set tasks=files/conversations/my-talk.jsonl" in out
    )
    assert "files/text/prose.txt  1 document:" in out
    status, out, _ = cli("files", "list", "--kind", "text", "--json")
    (listed,) = json.loads(out)
    assert (listed["name"], listed["state"]) == ("prose.txt", "ready")
    assert cli("files", "delete", listed["id"])[0] == 0
    assert "prose.txt" not in cli("files", "list")[1]
    text.write_bytes(b"\xff")
    status, _, err = cli("files", "upload", str(text))
    assert status == 2 and "prose.txt, line 1: not UTF-8" in err
    for words in (["x.txt"], [str(text), str(talk), "--name", "a.txt"], [str(text), "--kind", "weights"]):
        assert cli("files", "upload", *words)[0] == 2
