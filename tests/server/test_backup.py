"""The database as a file: written at one moment, read into either kind of database."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, select

from server import backup, migrate
from server.settings import Settings
from tests.server.test_migrate import MOMENT, ROWS

#: rows of the tables that later revisions added
NEWER: dict[str, dict[str, Any]] = {
    "webhooks": {"id": "h1", "url": "https://example.org", "name": "", "events": ["run.*"], "secret": "s"},
    "webhook_deliveries": {
        "id": "m1", "webhook_id": "h1", "type": "ping", "payload": {"a": 1}, "state": "pending", "tries": 0,
    },
    "alerts": {"id": "l1", "kind": "nan", "subject": "r1", "run_id": "r1", "message": "m"},
}  # fmt: skip

Content = dict[str, list[dict[str, Any]]]


def content(url: str) -> Content:
    """Every row, with times without their zone: SQLite keeps none."""
    known = MetaData()
    with migrate.sync_engine(url).connect() as connection:
        known.reflect(connection)
        read: Content = {}
        for table in known.sorted_tables:
            rows = [dict(row) for row in connection.execute(select(table)).mappings()]
            for row in rows:
                row.update({k: v.replace(tzinfo=None) for k, v in row.items() if hasattr(v, "tzinfo")})
            read[table.name] = sorted(rows, key=str)
        return read


def fill(url: str) -> None:
    migrate.upgrade(url)
    known = MetaData()
    with migrate.sync_engine(url).begin() as connection:
        known.reflect(connection)
        for name, values in ROWS.items():
            connection.execute(known.tables[name].insert(), values | MOMENT)
        child = ROWS["runs"] | MOMENT | {"id": "a0", "parent_id": "r1", "notes": "ü\n\u2028", "tags": ["a"]}
        connection.execute(known.tables["runs"].insert(), child)
        more = [child | {"id": f"m{number}", "parent_id": "a0"} for number in range(backup.BATCH + 3)]
        connection.execute(known.tables["runs"].insert(), more)
        log = {"run_id": "r1", "first": 0, "last": 4, "attempt": 1, "data": b"\x00\xff{}"}
        connection.execute(known.tables["log_chunks"].insert(), log)
        for name, values in NEWER.items():
            connection.execute(known.tables[name].insert(), values | MOMENT)


@pytest.fixture(params=["sqlite", "postgresql"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from empty(request, tmp_path / "source.db")


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield from empty(request, tmp_path / "target.db")


def empty(request: pytest.FixtureRequest, file: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{file}"
        return
    with request.getfixturevalue("postgres").database(migrated=False) as url:
        yield Settings(database_url=url).sqlalchemy_url


def test_what_is_restored_is_what_was_saved(source: str, target: str, tmp_path: Path) -> None:
    fill(source)
    file = tmp_path / "saved.gz"
    count = backup.backup(source, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert backup.restore(target, file) == count > len(ROWS) + backup.BATCH
    assert content(target) == content(source)
    with pytest.raises(backup.CannotRestore, match="into an empty one"):
        backup.restore(target, file)


def test_a_file_that_is_cut_short_or_none_restores_nothing(tmp_path: Path) -> None:
    source, target = (f"sqlite:///{tmp_path / name}.db" for name in ("a", "b"))
    fill(source)
    file = tmp_path / "saved.gz"
    backup.backup(source, file)
    whole = gzip.decompress(file.read_bytes()).splitlines(keepends=True)
    cut = gzip.compress(b"".join(whole[:-1])), gzip.compress(b"".join([*whole[:-5], whole[-1]]))
    for damaged in (*cut, file.read_bytes()[:-20], gzip.compress(b"{}"), b"not gzip at all"):
        file.write_bytes(damaged)
        with pytest.raises((backup.CannotRestore, OSError)):
            backup.restore(target, file)
    migrate.upgrade(target)
    assert all(not rows for name, rows in content(target).items() if name != "alembic_version")


def test_a_base_that_was_never_used_is_nothing_to_save(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    file, base = tmp_path / "saved.gz", tmp_path / "never"
    urls = [f"sqlite+aiosqlite:///{base / 'nanochat.db'}", f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"]
    (tmp_path / "empty.db").touch()
    with request.getfixturevalue("postgres").database(migrated=False) as url:
        for empty in (*urls, Settings(database_url=url).sqlalchemy_url):
            with pytest.raises(backup.NothingThere, match="NANOCHAT_BASE_DIR"):
                backup.backup(empty, file)
    assert not file.exists() and not base.exists()
    environ = {**os.environ, "NANOCHAT_BASE_DIR": str(base)}
    command = [sys.executable, "-m", "server.backup", "backup", str(file)]
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and "nothing in" in ended.stderr


def test_the_commands_save_restore_and_move(tmp_path: Path) -> None:
    fill(f"sqlite:///{tmp_path / 'nanochat.db'}")
    nanochat = str(Path(sys.executable).with_name("nanochat"))

    def db(*arguments: str, base: Path = tmp_path, code: int = 0) -> str:
        environ = {**os.environ, "NANOCHAT_BASE_DIR": str(base)}
        ended = subprocess.run(
            [nanochat, "db", *arguments], env=environ, capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == code, ended.stderr
        return ended.stdout + ended.stderr

    file, other = str(tmp_path / "saved.gz"), tmp_path / "other"
    assert "rows in" in db("backup", file)
    assert "restored" in db("restore", file, base=other)
    assert "into an empty one" in db("restore", file, base=other, code=1)
    assert "rows moved" in db("move", f"sqlite:///{tmp_path / 'moved.db'}")
    here, there = (content(f"sqlite:///{path}") for path in (tmp_path / "nanochat.db", tmp_path / "moved.db"))
    assert here == there == content(f"sqlite:///{other / 'nanochat.db'}")
