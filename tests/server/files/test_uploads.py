"""Files arrive whole or not at all: parts, torn connections, restarts, two servers, names and room."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from nanochat_client.types.keys import Scope
from server.db import Database
from server.files import receive
from server.files import service as rules
from server.files.keeper import Keeper
from server.models import now
from server.settings import Settings
from tests.server.files.uploads import (
    GOOD,
    Torn,
    announce,
    announced,
    conversations,
    offset_of,
    send,
    settled,
    upload,
)
from tests.server.keys.conftest import caller, guarded, key_for  # noqa: F401 - fixtures
from tests.services import Service, eventually

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def content_of(service: Service, file: Any) -> bytes:
    return (service.settings.base_dir / file["path"]).read_bytes()


def parts_of(service: Service) -> list[Path]:
    return list((service.settings.base_dir / "files" / ".parts").iterdir())


# ---------------------------------------------------------------- the way of a file


def test_a_file_in_parts_is_checked_and_lies_where_runs_find_it(service: Service) -> None:
    content = conversations(300_000)
    answer = announce(service.client, content)
    file = answer.json()
    assert answer.status_code == 201 and answer.headers["location"] == f"/files/{file['id']}"
    assert (file["state"], file["offset"], file["path"]) == ("uploading", 0, "files/conversations/a.jsonl")
    assert file["expires_at"] > file["created_at"]
    for start in range(0, len(content), 70_000):
        answer = send(service.client, file["id"], content[start : start + 70_000], start)
        assert answer.status_code == 200, answer.text
        end = min(start + 70_000, len(content))
        assert answer.headers["upload-offset"] == str(end) and answer.json()["offset"] == end
    file = settled(service.client, file["id"])
    assert (file["state"], file["items"], file["message"]) == ("ready", content.count(b"\n"), None)
    assert file["ready_at"] and file["expires_at"] is None
    assert content_of(service, file) == content and parts_of(service) == []
    listed = service.client.get("/files").json()
    assert listed["items"] == [file] and listed["next_cursor"] is None


def test_a_body_without_a_length_is_taken_too(service: Service) -> None:
    content = conversations(200_000)
    file_id = announced(service.client, content)
    pieces = (content[start : start + 10_000] for start in range(0, len(content), 10_000))
    assert send(service.client, file_id, pieces, 0).json()["offset"] == len(content)
    assert settled(service.client, file_id)["state"] == "ready"


def test_a_bad_file_is_rejected_with_its_first_bad_line_and_its_name_is_free(service: Service) -> None:
    file = upload(service.client, GOOD + b"broken\n")
    assert file["state"] == "rejected" and file["message"].startswith("a.jsonl, line 2: no JSON")
    assert not (service.settings.base_dir / file["path"]).exists() and parts_of(service) == []
    assert send(service.client, file["id"], b"x", 0).json()["code"] == "invalid_state"
    assert upload(service.client, GOOD)["state"] == "ready"
    assert service.client.get(f"/files/{file['id']}").status_code == 404


def test_other_bytes_than_announced_are_rejected(service: Service) -> None:
    file_id = announced(service.client, GOOD)
    send(service.client, file_id, b"x" * len(GOOD), 0)
    file = settled(service.client, file_id)
    assert file["state"] == "rejected" and "sha256" in file["message"]


def test_texts_and_presets_are_told_apart_and_listed_by_kind(service: Service) -> None:
    text = upload(service.client, "Ein Text über alles.\n".encode(), "prose.txt", "text")
    preset = upload(service.client, b"depth = 3\n", "mine.py", "preset")
    assert (text["state"], text["items"]) == ("ready", 1)
    assert (preset["state"], preset["items"]) == ("ready", None)
    listed = service.client.get("/files", params={"kind": "preset"}).json()["items"]
    assert [file["name"] for file in listed] == ["mine.py"]
    first = service.client.get("/files", params={"limit": 1}).json()
    assert [file["name"] for file in first["items"]] == ["mine.py"]
    rest = service.client.get("/files", params={"cursor": first["next_cursor"]}).json()
    assert [file["name"] for file in rest["items"]] == ["prose.txt"]


def test_one_that_is_deleted_is_gone_and_its_name_free(service: Service) -> None:
    file = upload(service.client, GOOD)
    assert service.client.delete(f"/files/{file['id']}").status_code == 204
    assert not (service.settings.base_dir / file["path"]).exists() and parts_of(service) == []
    assert service.client.delete(f"/files/{file['id']}").status_code == 404
    unfinished = announced(service.client, GOOD)
    send(service.client, unfinished, GOOD[:10], 0)
    assert service.client.delete(f"/files/{unfinished}").status_code == 204 and parts_of(service) == []
    assert upload(service.client, GOOD)["state"] == "ready"


# ---------------------------------------------------------------- going on


def test_a_wrong_offset_is_answered_with_the_true_one(service: Service) -> None:
    file_id = announced(service.client, GOOD)
    assert send(service.client, file_id, GOOD[:30], 0).status_code == 200
    for offset in (0, 29, 31, 10**12):
        answer = send(service.client, file_id, GOOD[30:40], offset)
        assert answer.status_code == 409 and answer.json()["code"] == "wrong_offset"
        assert answer.headers["upload-offset"] == "30"
    assert service.client.patch(f"/files/{file_id}", content=b"x").status_code == 422
    assert send(service.client, file_id, GOOD[30:], 30).json()["state"] == "ready"


def test_the_same_file_announced_again_goes_on_where_it_is(service: Service) -> None:
    file_id = announced(service.client, GOOD)
    send(service.client, file_id, GOOD[:30], 0)
    again = announce(service.client, GOOD)
    assert again.status_code == 200 and (again.json()["id"], again.json()["offset"]) == (file_id, 30)
    send(service.client, file_id, GOOD[30:], 30)
    whole = announce(service.client, GOOD).json()
    assert (whole["id"], whole["state"]) == (file_id, "ready")
    other = announce(service.client, GOOD + GOOD)
    assert other.status_code == 409 and other.json()["code"] == "name_taken"
    assert other.json()["errors"][0]["pointer"] == "/name"


def test_an_announcement_sent_twice_makes_one_upload(service: Service) -> None:
    headers = {"idempotency-key": "once"}
    body = {"name": "a.jsonl", "kind": "conversations", "size": 5, "sha256": "0" * 64}
    answers = [service.client.post("/files", json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    other = service.client.post("/files", json={**body, "name": "b.jsonl"}, headers=headers)
    assert other.json()["code"] == "idempotency_conflict"


def test_what_came_before_a_connection_broke_is_kept(service: Service) -> None:
    content = conversations(500_000)
    file_id = announced(service.client, content)
    torn = Torn(service, file_id, 0, len(content))
    torn.send(content[:123_456])
    torn.cut()
    assert eventually(lambda: offset_of(service.client, file_id)) == 123_456
    send(service.client, file_id, content[123_456:], 123_456)
    assert content_of(service, settled(service.client, file_id)) == content


def test_whoever_comes_last_goes_on_and_a_dead_connection_holds_nobody_up(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "SYNC_BYTES", 20_000)
    content = conversations(500_000)
    file_id = announced(service.client, content)
    dead = Torn(service, file_id, 0, len(content))
    dead.send(content[:50_000])  # and then nothing, for ever
    at = eventually(lambda: offset_of(service.client, file_id))
    send(service.client, file_id, content[at : at + 1], at)  # the dead one is stopped; what had come is kept
    at = offset_of(service.client, file_id)
    assert 20_000 <= at <= 50_001 and b"overtaken" in dead.answer()
    send(service.client, file_id, content[at:], at)
    assert content_of(service, settled(service.client, file_id)) == content


def test_a_sender_that_says_nothing_is_told_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "SILENT_S", 1.0)
    file_id = announced(service.client, GOOD)
    slow = Torn(service, file_id, 0, len(GOOD))
    slow.send(GOOD[:20])
    assert b"too_slow" in slow.answer()
    assert offset_of(service.client, file_id) == 20


def test_more_than_announced_is_refused_and_not_kept(service: Service) -> None:
    file_id = announced(service.client, GOOD)
    send(service.client, file_id, GOOD[:10], 0)
    for data in (GOOD, iter([GOOD])):
        answer = send(service.client, file_id, data, 10)
        assert answer.status_code == 413 and answer.json()["code"] == "too_large"
        assert offset_of(service.client, file_id) == 10
    assert send(service.client, file_id, GOOD[10:], 10).json()["state"] == "ready"


def test_a_restarted_server_goes_on(settings: Settings) -> None:
    content = conversations(200_000)
    first = Service(settings).start()
    file_id = announced(first.client, content)
    send(first.client, file_id, content[:100_000], 0)
    torn = Torn(first, file_id, 100_000, 100_000)
    torn.send(content[100_000:150_000])
    first.stop()
    second = Service(settings).start()
    try:
        at = offset_of(second.client, file_id)
        assert 100_000 <= at <= 150_000
        send(second.client, file_id, content[at:], at)
        assert content_of(second, settled(second.client, file_id)) == content
    finally:
        second.stop()


def test_what_was_never_acknowledged_is_written_again(service: Service) -> None:
    """As after a power cut: the file is longer than the row says, and what is there is rubbish."""
    content = conversations(100_000)
    file_id = announced(service.client, content)
    send(service.client, file_id, content[:40_000], 0)
    (part,) = parts_of(service)
    with part.open("ab") as file:
        file.write(b"\0" * 30_000)
    send(service.client, file_id, content[40_000:], 40_000)
    assert content_of(service, settled(service.client, file_id)) == content


def test_what_is_not_there_any_more_has_to_come_again(service: Service) -> None:
    file_id = announced(service.client, GOOD)
    send(service.client, file_id, GOOD[:40], 0)
    parts_of(service)[0].unlink()
    answer = send(service.client, file_id, GOOD[40:], 40)
    assert answer.status_code == 409 and answer.headers["upload-offset"] == "0"
    assert send(service.client, file_id, GOOD, 0).json()["state"] == "ready"


def test_a_check_that_a_server_did_not_finish_is_made_by_the_next(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(self: Keeper, file_id: str) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "_check", nothing)
        first = Service(settings).start()
        ids = [announced(first.client, GOOD * n, f"{n}.jsonl") for n in (1, 2)]
        for n, file_id in enumerate(ids, 1):
            assert send(first.client, file_id, GOOD * n, 0).json()["state"] == "checking"
        first.stop()
    # of the second, the server died after the file had come to its place, and before the row knew
    part = settings.base_dir / "files" / ".parts" / ids[1]
    final = settings.base_dir / "files" / "conversations" / "2.jsonl"
    final.parent.mkdir(exist_ok=True)
    part.rename(final)
    second = Service(settings).start()
    try:
        found = [settled(second.client, file_id) for file_id in ids]
        assert [file["state"] for file in found] == ["ready", "ready"]
        assert [content_of(second, file) for file in found] == [GOOD, GOOD * 2]
        eventually(lambda: parts_of(second) == [])
    finally:
        second.stop()


# ---------------------------------------------------------------- two servers


@pytest.fixture
def two(settings: Settings) -> Iterator[list[Service]]:
    servers = [Service(settings).start() for _ in range(2)]
    yield servers
    for server in servers:
        server.stop()


def test_two_servers_on_one_directory_take_parts_of_one_file_in_turn(two: list[Service]) -> None:
    content = conversations(400_000)
    file_id = announced(two[0].client, content)
    at, turn = 0, 0
    while at < len(content):
        answer = send(two[turn % 2].client, file_id, content[at : at + 30_000], at)
        at, turn = int(answer.headers["upload-offset"]), turn + 1
    assert content_of(two[1], settled(two[1].client, file_id)) == content


def test_two_servers_that_receive_at_once_corrupt_nothing(
    two: list[Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "LOCK_S", 0.3)
    content = conversations(400_000)
    file_id = announced(two[0].client, content)
    first = Torn(two[0], file_id, 0, len(content))
    first.send(content[:100_000])

    def refused() -> bool:
        answer = send(two[1].client, file_id, b"", 0)
        return answer.status_code == 409 and bool(answer.headers["retry-after"])

    eventually(refused)
    first.send(content[100_000:])
    assert content_of(two[0], settled(two[0].client, file_id)) == content

    def race(server: Service) -> None:
        """Send until it is whole, wherever the other one is."""
        at = 0
        while at < len(content):
            answer = send(server.client, other, content[at : at + 20_000], at)
            assert answer.status_code in (200, 409), answer.text
            at = offset_of(server.client, other)

    other = announced(two[0].client, content, "b.jsonl")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(race, two))
    assert content_of(two[0], settled(two[0].client, other)) == content


# ---------------------------------------------------------------- what is refused


@sqlite_only
@pytest.mark.parametrize(
    ("changes", "status", "pointer", "nearest"),
    [
        ({"name": "../../etc/passwd"}, 422, "/name", None),
        ({"name": "/etc/cron.d/x.jsonl"}, 422, "/name", "x.jsonl"),
        ({"name": "a/b.jsonl"}, 422, "/name", "b.jsonl"),
        ({"name": "a\0.jsonl"}, 422, "/name", None),
        ({"name": "My Talk.JSONL"}, 422, "/name", "my-talk.jsonl"),
        ({"name": "a" * 70 + ".jsonl"}, 422, "/name", "a" * 58 + ".jsonl"),
        ({"name": "a.txt"}, 422, "/name", None),
        ({"name": "a.toml", "kind": "preset"}, 422, "/name", None),
        ({"name": "debug_cpu.py", "kind": "preset"}, 422, "/name", None),
        ({"name": "debug_cpu.json", "kind": "preset"}, 422, "/name", None),
        ({"name": "auto.py", "kind": "preset"}, 422, "/name", None),
        ({"kind": "weights"}, 422, "/kind", None),
        ({"size": 0}, 422, "/size", 1),
        ({"size": 2**62}, 422, "/size", 2**53),
        ({"sha256": "x" * 64}, 422, "/sha256", None),
        ({"name": "a.py", "kind": "preset", "size": 65_537}, 413, None, None),
        ({"size": 6 * 2**30}, 413, None, None),
    ],
)
def test_what_cannot_be_a_file_is_refused_before_it_comes(
    service: Service, changes: dict[str, Any], status: int, pointer: str | None, nearest: Any
) -> None:
    answer = announce(service.client, GOOD, **changes)
    assert answer.status_code == status, answer.text
    if pointer is not None:
        (item,) = answer.json()["errors"]
        assert (item["pointer"], item["nearest"]) == (pointer, nearest)
    assert service.client.get("/files").json()["items"] == []
    assert not (service.settings.base_dir / "files").exists()


@pytest.fixture
def small(settings: Settings) -> Iterator[Service]:
    """Room for a hundred kilobytes, half of that a file."""
    limits = {"upload_quota_gib": 100_000 / 2**30, "upload_file_gib": 50_000 / 2**30}
    running = Service(settings.model_copy(update=limits)).start()
    yield running
    running.stop()


def test_uploads_have_a_quota_that_unfinished_ones_count_for(
    small: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = [conversations(40_000) + GOOD * n for n in range(3)]
    assert announce(small.client, conversations(60_000)).status_code == 413
    first, second = (announced(small.client, content[n], f"{n}.jsonl") for n in (0, 1))
    refused = announce(small.client, content[2], "2.jsonl")
    assert refused.status_code == 507 and refused.json()["code"] == "quota_exceeded"
    assert "NANOCHAT_UPLOAD_QUOTA_GIB" in refused.json()["detail"]
    small.client.delete(f"/files/{first}")
    assert announce(small.client, content[2], "2.jsonl").status_code == 201
    assert second
    monkeypatch.setattr(rules, "MOST", 2)
    assert announce(small.client, GOOD, "3.jsonl").json()["code"] == "too_many"


def test_of_many_who_announce_at_once_the_quota_holds(small: Service) -> None:
    content = [conversations(30_000) + GOOD * n for n in range(8)]

    def try_one(n: int) -> int:
        with httpx.Client(base_url=small.base_url, timeout=60) as client:
            return announce(client, content[n], f"{n}.jsonl").status_code

    with ThreadPoolExecutor(8) as pool:
        found = sorted(pool.map(try_one, range(8)))
    assert found == [201] * 3 + [507] * 5


@sqlite_only
def test_a_full_disk_is_said_before_and_while_bytes_come(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(service.settings.base_dir)
    with monkeypatch.context() as patch:
        patch.setattr(rules.shutil, "disk_usage", lambda _: usage._replace(free=rules.SPARE_BYTES + 10))
        refused = announce(service.client, GOOD)
        assert refused.status_code == 507 and refused.json()["code"] == "disk_full"
    file_id = announced(service.client, GOOD)
    send(service.client, file_id, GOOD[:10], 0)

    def full(self: Any, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(receive.Part, "write", full)
        refused = send(service.client, file_id, GOOD[10:], 10)
        assert refused.status_code == 507 and refused.json()["code"] == "disk_full"
    assert offset_of(service.client, file_id) == 10

    def broken(self: Any, data: bytes) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(receive.Part, "write", broken)
        assert send(service.client, file_id, GOOD[10:], 10).json()["code"] == "disk_failed"
    assert offset_of(service.client, file_id) == 10, "what was not written is not acknowledged"
    assert send(service.client, file_id, GOOD[10:], 10).json()["state"] == "ready"


@sqlite_only
def test_a_large_body_passes_through_a_little_memory(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    plain = receive.Part.write

    def counted(self: Any, data: bytes) -> None:
        written.append(len(data))
        plain(self, data)

    monkeypatch.setattr(receive.Part, "write", counted)
    monkeypatch.setattr(receive, "SYNC_BYTES", 5 * 2**20)
    line = b"words and words " * 64
    content = line * (20 * 2**20 // len(line))
    file_id = announced(service.client, content, "long.txt", "text")
    assert send(service.client, file_id, content, 0).json()["offset"] == len(content)
    assert sum(written) == len(content) and max(written) < 2 * receive.WRITE_BYTES
    assert settled(service.client, file_id)["sha256"] == hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- who may


@sqlite_only
def test_a_key_does_with_files_what_its_scopes_say(caller: Callable[..., httpx.Client]) -> None:  # noqa: F811
    reader, submitter, operator = (caller(s) for s in (Scope.READ, Scope.SUBMIT, Scope.OPERATE))
    assert announce(reader, GOOD).status_code == announce(operator, GOOD).status_code == 403
    file_id = announced(submitter, GOOD)
    assert send(reader, file_id, GOOD, 0).status_code == 403
    assert submitter.get("/files").status_code == 403 and reader.get("/files").status_code == 200
    assert submitter.delete(f"/files/{file_id}").status_code == 204, "its own, while it comes"
    file = upload(submitter, GOOD)
    assert submitter.delete(f"/files/{file['id']}").json()["code"] == "forbidden"
    assert reader.delete(f"/files/{file['id']}").status_code == 403
    assert operator.delete(f"/files/{file['id']}").status_code == 204


# ---------------------------------------------------------------- what is collected


async def test_an_upload_that_nothing_comes_for_goes_after_a_day(
    service: Service, settings: Settings
) -> None:
    ready = upload(service.client, GOOD)
    rejected = upload(service.client, b"broken", "b.jsonl")
    unfinished = announced(service.client, GOOD, "c.jsonl")
    send(service.client, unfinished, GOOD[:10], 0)
    stray = settings.base_dir / "files" / ".parts" / "f0000000000"
    stray.write_bytes(b"of nobody")
    os.utime(stray, (0, 0))
    db = Database(settings.sqlalchemy_url)
    try:
        early = Keeper(settings, db, clock=lambda: now() + timedelta(hours=23))
        late = Keeper(settings, db, clock=lambda: now() + timedelta(hours=25))
        await early.look()
        assert len(service.client.get("/files").json()["items"]) == 3
        await late.look()
    finally:
        await db.close()
    assert [file["id"] for file in service.client.get("/files").json()["items"]] == [ready["id"]]
    assert service.client.get(f"/files/{rejected['id']}").status_code == 404
    assert parts_of(service) == [] and content_of(service, ready) == GOOD
