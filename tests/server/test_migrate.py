"""The schema's history leads to the models, and back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, inspect, text

from server import migrate
from server.models import Base
from server.settings import Settings


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"
        return
    with request.getfixturevalue("postgres").database(migrated=False) as url:
        yield Settings(database_url=url).sqlalchemy_url


def tables(url: str) -> set[str]:
    engine = migrate.sync_engine(url)
    return set(inspect(engine).get_table_names())


def test_migrations_lead_to_exactly_the_models(empty_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    migrate.upgrade(empty_url)
    with migrate.sync_engine(empty_url).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert migrate.current(connection) == migrate.head()


def test_upgrade_is_repeatable_and_downgrade_leaves_nothing(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    migrate.upgrade(empty_url)
    assert set(Base.metadata.tables) <= tables(empty_url)
    migrate.downgrade(empty_url)
    assert tables(empty_url) == {"alembic_version"}
    migrate.upgrade(empty_url)
    assert set(Base.metadata.tables) <= tables(empty_url)


def test_a_database_newer_than_the_code_is_refused(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    with migrate.sync_engine(empty_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(migrate.NewerDatabase, match="9999"):
        migrate.upgrade(empty_url)


def test_what_is_stored_outlives_the_way_up_and_down(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0002")
    with migrate.sync_engine(empty_url).begin() as connection:
        known = MetaData()
        known.reflect(connection)
        for name, values in ROWS.items():
            connection.execute(known.tables[name].insert(), values | MOMENT)
    migrate.upgrade(empty_url)
    assert counts(empty_url) == dict.fromkeys(ROWS, 1)
    migrate.downgrade(empty_url, "0002")
    assert counts(empty_url) == dict.fromkeys(ROWS, 1)


MOMENT: dict[str, Any] = {"created_at": datetime(2026, 1, 2, tzinfo=UTC)}
ROWS: dict[str, dict[str, Any]] = {
    "runs": {
        "id": "r1", "stage": "sft", "name": "n", "state": "succeeded", "desired": "run", "config": {},
        "parent_checkpoint": "last", "gpus": 0, "attempt": 1, "max_restarts": 0, "restarts_left": 0,
        "priority": 0, "tags": [], "notes": "", "summary": {}, "log_end": 0, "last_seq": 0, "version": 1,
    },
    "attempts": {
        "id": "a1", "run_id": "r1", "number": 1, "state": "succeeded", "fence": 1, "adoptable": False,
        "gpus": [], "log_acked": 0, "events_acked": 0, "tail": [],
    },
    "checkpoints": {
        "id": "c1", "run_id": "r1", "stage": "sft", "step": 5, "path": "p", "bytes": 1, "sha256": "s",
        "metrics": {},
    },
    "aliases": {"name": "best", "checkpoint_id": "c1"},
    "evaluations": {
        "id": "e1", "run_id": "r1", "name": "chat_eval", "step": 5, "values": {}, "counts": {}, "details": {},
    },
}  # fmt: skip


def counts(url: str) -> dict[str, int]:
    with migrate.sync_engine(url).connect() as connection:
        return {name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one() for name in ROWS}
