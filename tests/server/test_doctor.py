"""The doctor's look at the database and the queue: real ones, in every condition that has its own fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server import doctor, migrate
from server.settings import Settings
from tests.services import free_port


def looked(settings: Settings) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in doctor.checks(settings)}


def test_what_works_is_ok(settings: Settings) -> None:
    found = looked(settings)
    assert [check["level"] for check in found.values()] == ["ok", "ok"]
    assert f"schema {migrate.head()}" in found["database"]["found"]
    assert "Valkey" in found["queue"]["found"]


def test_an_older_schema_names_the_migration(database_url: str) -> None:
    settings = Settings(database_url=database_url)
    migrate.downgrade(settings.sqlalchemy_url, "0001")
    check = doctor.database(settings)
    assert (check["level"], check["fix"]) == ("warn", "python -m server.migrate")
    assert "has schema 0001" in check["found"]


def test_a_schema_of_a_later_version_fails(database_url: str) -> None:
    settings = Settings(database_url=database_url)
    with migrate.sync_engine(settings.sqlalchemy_url).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    check = doctor.database(settings)
    assert check["level"] == "fail" and "9999, of a later version" in check["found"]


def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    base = tmp_path / "nowhere"
    assert {check["level"] for check in doctor.checks(Settings(base_dir=base))} == {"warn"}
    assert not base.exists()


PASSWORD = "hunter22"


@pytest.mark.parametrize("scheme", ["postgresql", "nonsense"])
def test_what_does_not_answer_fails_and_keeps_the_password(scheme: str) -> None:
    port = free_port()
    settings = Settings(
        database_url=f"{scheme}://someone:{PASSWORD}@127.0.0.1:{port}/x",
        redis_url=f"redis://:{PASSWORD}@127.0.0.1:{port}/0",
    )
    found = looked(settings)
    assert {check["level"] for check in found.values()} == {"fail"}
    assert PASSWORD not in json.dumps(found)
    assert found["queue"]["fix"] == "unset NANOCHAT_REDIS_URL"


def test_a_file_that_is_no_database_fails(tmp_path: Path) -> None:
    (tmp_path / "nanochat.db").write_text("this is text " * 100)
    assert doctor.database(Settings(base_dir=tmp_path))["level"] == "fail"


def test_a_setting_that_cannot_be_read_is_a_line_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "server.doctor"],
        env={**os.environ, "NANOCHAT_PORT": "eighty"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (check,) = map(json.loads, done.stdout.splitlines())
    assert (check["level"], check["fix"]) == ("fail", "unset NANOCHAT_PORT")
