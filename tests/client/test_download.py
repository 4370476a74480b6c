"""Checkpoints as files: progress, and going on where a connection or a program stopped."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat_client import ConnectionFailed, NotFound
from nanochat_client.errors import ServerError
from server.checkpoints.archive import Archive, first_byte
from tests.client.conftest import Either, Relay
from tests.server.fake_worker import FakeWorker, post_run, store_checkpoint
from tests.services import Service

BIG = 3_000_001
FILES = {"model.safetensors": os.urandom(BIG), "manifest.json": b"{}", "empty": b"", "block": b"x" * 512}


def write(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def checkpoint_id(service: Service, worker: FakeWorker) -> str:
    """A finished run's checkpoint with files of 3 MB."""
    path = "base_checkpoints/x/step_000010"
    write(service.settings.base_dir / path)
    run = post_run(service)
    worker.finish(worker.claim())
    asyncio.run(store_checkpoint(service, run["id"], "base", path, step=10))
    return str(service.client.get("/checkpoints").json()["items"][0]["id"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where downloads go."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def content_of(file: Path) -> dict[str, bytes]:
    found = {}
    with tarfile.open(file) as archive:
        for member in archive:
            source = archive.extractfile(member)
            assert source is not None
            found[member.name.partition("/")[2]] = source.read()
    return found


def test_a_download_tells_its_progress(either: Either, checkpoint_id: str, folder: Path) -> None:
    told: list[tuple[int, int]] = []
    file = either.download(checkpoint_id, folder / "c.tar", progress=lambda *said: told.append(said))
    assert content_of(file) == FILES
    assert told[-1] == (file.stat().st_size, file.stat().st_size)
    assert told == sorted(told) and list(folder.iterdir()) == [file]


def test_a_broken_connection_costs_nothing_that_came(
    connect: Callable[[str], Either], relay: Relay, checkpoint_id: str, folder: Path
) -> None:
    relay.cut_after = [500_000, 1_000_000]
    seen: list[int] = []
    file = connect(relay.url).download(
        checkpoint_id, folder / "c.tar", progress=lambda here, _: seen.append(here)
    )
    assert content_of(file) == FILES
    assert not relay.cut_after and seen == sorted(seen), "nothing was fetched twice"


def test_another_program_goes_on_where_the_first_one_stopped(
    either: Either, checkpoint_id: str, folder: Path
) -> None:
    class Killed(Exception): ...

    def stop(here: int, total: int) -> None:
        if here > 1_000_000:
            raise Killed

    with pytest.raises(Killed):
        either.download(checkpoint_id, folder / "c.tar", progress=stop)
    assert not (folder / "c.tar").exists(), "a part never looks like the whole"
    told: list[int] = []
    file = either.download(checkpoint_id, str(folder / "c.tar"), progress=lambda here, _: told.append(here))
    assert told[0] > 1_000_000 and content_of(file) == FILES


def test_what_cannot_be_downloaded_says_why(
    either: Either, relay: Relay, connect: Callable[[str], Either], checkpoint_id: str, service: Service,
    folder: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with pytest.raises(NotFound, match="c0000000000"):
        either.download("c0000000000", folder / "c.tar")
    monkeypatch.setattr("nanochat_client._http.PAUSE_S", 0.0)
    client = connect(relay.url)

    def away(here: int, total: int) -> None:
        relay.refuse = 1000

    relay.cut_after = [1_000_000]
    with pytest.raises(ConnectionFailed):
        client.download(checkpoint_id, folder / "c.tar", progress=away)
    for file in (service.settings.base_dir / "base_checkpoints/x/step_000010").iterdir():
        file.unlink()
    relay.refuse = 0
    with pytest.raises(ServerError):  # the part that is here is longer than what the server has
        client.download(checkpoint_id, folder / "c.tar")


def test_any_part_of_an_archive_is_the_same_bytes(tmp_path: Path) -> None:
    archive = Archive(write(tmp_path / "a"), "a")
    whole = b"".join(archive.content())
    with tarfile.open(fileobj=io.BytesIO(whole)) as read:
        assert len(read.getnames()) == len(FILES) and len(whole) == archive.size
    end = len(whole)
    for start in [*range(0, end - BIG, 97), end - BIG, end - 1500, end - 1, end]:
        assert b"".join(archive.content(start)) == whole[start:], start


@pytest.mark.parametrize(
    ("wanted", "condition", "start"),
    [
        (None, None, None),
        ("bytes=5-", None, 5),
        ("bytes=5-", '"v"', 5),
        ("bytes=5-", '"w"', None),
        ("bytes=5-9", None, None),
        ("bytes=-5", None, None),
        ("bytes=0-,5-", None, None),
        ("lines=5-", None, None),
        (f"bytes={10**30}-", None, None),
    ],
)
def test_only_ranges_to_the_end_of_this_version_are_honoured(
    wanted: str | None, condition: str | None, start: int | None
) -> None:
    assert first_byte(wanted, condition, '"v"') == start
