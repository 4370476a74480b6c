"""The schema's history leads to the models, and back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, inspect, select, text

from server import migrate
from server.models import Base
from server.settings import Settings
from tests.services import Postgres


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


def test_the_command_takes_a_database_back_for_an_older_version(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/deploy.md, "Rollback": what the refusal names is what the command takes."""
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("NANOCHAT_DATABASE_URL", empty_url)
    assert migrate.main([]) == 0
    assert capsys.readouterr().out == f"database is at revision {migrate.head()}\n"
    with migrate.sync_engine(empty_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert migrate.main([]) == 1
    assert f"python -m server.migrate --to {migrate.head()}" in capsys.readouterr().err
    with migrate.sync_engine(empty_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :head"), {"head": migrate.head()})
    assert migrate.main(["--to", "0010"]) == 0
    assert "files" not in tables(empty_url) and "webhooks" in tables(empty_url)
    assert migrate.main(["--to", "nothing"]) == 1
    assert capsys.readouterr().err.startswith("migrate: ")
    assert migrate.main([]) == 0
    assert "files" in tables(empty_url)


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


def test_the_way_down_and_up_again_from_a_filled_new_database_keeps_the_runs(empty_url: str) -> None:
    from tests.server.test_backup import fill

    fill(empty_url)
    before = counts(empty_url)
    for revision in ("0007", "0006", "0002"):
        migrate.downgrade(empty_url, revision)
        assert counts(empty_url) == before
    migrate.upgrade(empty_url)
    assert counts(empty_url) == before
    with migrate.sync_engine(empty_url).connect() as connection:
        kept = connection.execute(text("SELECT log_start, metric_start FROM runs WHERE id = 'r1'")).one()
        assert tuple(kept) == (0, 0)


def test_metrics_become_blocks_and_rows_again(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0005")
    values = {step: None if step % 7 == 0 else step / 3 for step in range(1, 5001)}
    lines = [{"values": {"train/loss": value}, "note": "kept"} for value in values.values()]
    with migrate.sync_engine(empty_url).begin() as connection:
        known = MetaData()
        known.reflect(connection)
        connection.execute(known.tables["runs"].insert(), ROWS["runs"] | MOMENT | {"last_seq": 5000})
        points = [
            {
                "run_id": "r1",
                "key": "train/loss",
                "step": step,
                "value": value,
                "t": float(step),
                "attempt": 2,
            }
            for step, value in values.items()
        ]
        connection.execute(known.tables["metric_points"].insert(), points)
        events = [
            {"run_id": "r1", "seq": step, "attempt": 2, "kind": "metric", "step": step, "t": float(step),
             "data": data}
            for step, data in enumerate(lines, 1)
        ]  # fmt: skip
        connection.execute(known.tables["events"].insert(), events)
    before = metrics(empty_url)
    migrate.upgrade(empty_url)
    with migrate.sync_engine(empty_url).connect() as connection:
        sizes = connection.execute(text("SELECT count FROM metric_blocks ORDER BY number")).scalars().all()
        assert sizes == [4096, 904]
        assert connection.execute(text("SELECT sum(count) FROM metric_chunks")).scalar_one() == 5000
    migrate.downgrade(empty_url, "0005")
    assert metrics(empty_url) == before


def metrics(url: str) -> tuple[list[Any], list[Any]]:
    """The rows of points and of events, in order."""
    with migrate.sync_engine(url).connect() as connection:
        known = MetaData()
        known.reflect(connection)
        points, events = known.tables["metric_points"], known.tables["events"]
        return (
            list(connection.execute(select(points).order_by(points.c.key, points.c.step)).all()),
            list(connection.execute(select(events).order_by(events.c.seq)).all()),
        )


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


def test_postgresql_does_not_compress_what_is_packed(postgres: Postgres) -> None:
    """Compressing took most of the time of packing, while whoever shipped waited."""
    with postgres.database(migrated=False) as url:
        there = Settings(database_url=url).sqlalchemy_url
        migrate.upgrade(there)
        stored = text("SELECT attstorage FROM pg_attribute WHERE attrelid = 'metric_blocks'::regclass"
                      " AND attname IN ('points', 'fine', 'coarse')")  # fmt: skip
        with migrate.sync_engine(there).connect() as connection:
            assert list(connection.scalars(stored)) == ["e", "e", "e"]
