"""Metrics in packed blocks: rows of points and of metric events become columns and chunks

The format of both is that of server/telemetry/{blocks,series}.py, which this calls: whoever changes it
writes a migration that reads the old one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import sqlalchemy as sa
from alembic import op

from server.telemetry.blocks import Columns, pack, unpack
from server.telemetry.series import CHUNK_EVENTS

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ROWS = 2000


def upgrade() -> None:
    heads = op.create_table(
        "metric_heads",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("keys", sa.JSON(), nullable=False),
        sa.Column("packed", sa.BigInteger(), nullable=False),
        sa.Column("tail_events", sa.Integer(), nullable=False),
        sa.Column("tail_chunks", sa.Integer(), nullable=False),
        _run_key("metric_heads"),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_metric_heads")),
    )
    chunks = op.create_table(
        "metric_chunks",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        _run_key("metric_chunks"),
        sa.PrimaryKeyConstraint("run_id", "first", name=op.f("pk_metric_chunks")),
    )
    blocks = op.create_table(
        "metric_blocks",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("coarse", sa.LargeBinary(), nullable=False),
        sa.Column("fine", sa.LargeBinary(), nullable=False),
        sa.Column("points", sa.LargeBinary(), nullable=False),
        _run_key("metric_blocks"),
        sa.PrimaryKeyConstraint("run_id", "key", "number", name=op.f("pk_metric_blocks")),
    )
    _pack(heads, chunks, blocks)
    op.drop_table("metric_points")


def _run_key(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_run_id_runs")
    return sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=name, ondelete="CASCADE")


def _pack(heads: sa.Table, chunks: sa.Table, blocks: sa.Table) -> None:
    connection = op.get_bind()
    events, points = _old_tables()
    runs = sa.table("runs", sa.column("id"), sa.column("last_seq"))
    for run_id, last_seq in connection.execute(sa.select(runs.c.id, runs.c.last_seq)).all():
        query = sa.select(points.c.key).distinct().where(points.c.run_id == run_id)
        keys = sorted(connection.scalars(query))
        if not keys:
            continue
        head = {"run_id": run_id, "keys": keys, "packed": last_seq, "tail_events": 0, "tail_chunks": 0}
        connection.execute(heads.insert(), [head])
        for key in keys:
            mine = sa.and_(points.c.run_id == run_id, points.c.key == key)
            query = sa.select(points.c.step, points.c.t, points.c.value).where(mine).order_by(points.c.step)
            columns = Columns()
            for step, t, value in connection.execute(query):
                columns.put(step, t, value)
            for number, block in enumerate(pack(columns)):
                row = {name: getattr(block, name) for name in block.__slots__}
                connection.execute(blocks.insert(), [{"run_id": run_id, "key": key, "number": number, **row}])
        for row in _chunks(_metric_events(connection, events, run_id)):
            connection.execute(chunks.insert(), [{"run_id": run_id, **row}])
    connection.execute(events.delete().where(events.c.kind == "metric"))


def _metric_events(connection: sa.Connection, events: sa.Table, run_id: str) -> Iterator[Any]:
    """Rows in order, a few at a time."""
    after = -1
    while True:
        mine = (events.c.run_id == run_id, events.c.kind == "metric", events.c.seq > after)
        query = sa.select(events).where(*mine).order_by(events.c.seq).limit(ROWS)
        rows = connection.execute(query).mappings().all()
        if not rows:
            return
        yield from rows
        after = rows[-1]["seq"]


def _chunks(rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for attempt, group in itertools.groupby(rows, key=lambda row: row["attempt"]):
        while piece := list(itertools.islice(group, CHUNK_EVENTS)):
            items = []
            for row in piece:
                data = dict(row["data"])
                item = {name: row[name] for name in ("seq", "step", "t")} | {"values": data.pop("values", {})}
                items.append({**item, "data": data} if data else item)
            yield {
                "first": piece[0]["seq"], "last": piece[-1]["seq"], "attempt": attempt, "count": len(piece),
                "data": orjson.dumps(items),
            }  # fmt: skip


def downgrade() -> None:
    op.create_table(
        "metric_points",
        sa.Column("run_id", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("t", sa.Float(precision=53), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        _run_key("metric_points"),
        sa.PrimaryKeyConstraint("run_id", "key", "step", name=op.f("pk_metric_points")),
    )
    _unpack()
    for table in ("metric_blocks", "metric_chunks", "metric_heads"):
        op.drop_table(table)


def _unpack() -> None:
    connection = op.get_bind()
    events, points = _old_tables()
    names = ("run_id", "first", "last", "attempt", "data")
    chunks = sa.table("metric_chunks", *map(sa.column, names))
    heads = sa.table("metric_heads", sa.column("run_id"), sa.column("packed"))
    for run_id, packed in connection.execute(sa.select(heads.c.run_id, heads.c.packed)).all():
        series, attempt = _stored(connection, run_id), 1
        query = sa.select(chunks).where(chunks.c.run_id == run_id).order_by(chunks.c.first)
        for chunk in connection.execute(query).all():
            items, attempt = orjson.loads(chunk.data), chunk.attempt
            rows = [
                {"run_id": run_id, "seq": item["seq"], "attempt": attempt, "kind": "metric",
                 "step": item["step"], "t": item["t"],
                 "data": {**item.get("data", {}), "values": item["values"]}}
                for item in items
            ]  # fmt: skip
            connection.execute(events.insert(), rows)
            for item in items if chunk.last > packed else ():
                for key, value in item["values"].items():
                    series.setdefault(key, Columns()).put(item["step"], item["t"], value)
        # who measured a point is no longer known: the newest attempt, which later ones replace
        for key, columns in series.items():
            rows = [
                {"run_id": run_id, "key": key, "step": step, "t": t, "attempt": attempt,
                 "value": value if value == value else None}
                for step, t, value in zip(columns.steps, columns.times, columns.values, strict=True)
            ]  # fmt: skip
            for start in range(0, len(rows), ROWS):
                connection.execute(points.insert(), rows[start : start + ROWS])


def _stored(connection: sa.Connection, run_id: str) -> dict[str, Columns]:
    names = ("run_id", "key", "number", "points")
    blocks = sa.table("metric_blocks", *map(sa.column, names))
    query = sa.select(blocks.c.key, blocks.c.points).where(blocks.c.run_id == run_id)
    series: dict[str, Columns] = {}
    for key, data in connection.execute(query.order_by(blocks.c.key, blocks.c.number)):
        series.setdefault(key, Columns()).extend(unpack(data))
    return series


def _old_tables() -> tuple[sa.Table, sa.Table]:
    """`events` and `metric_points` as they were."""
    tables = sa.MetaData()
    events = sa.Table(
        "events", tables,
        sa.Column("run_id", sa.String), sa.Column("seq", sa.BigInteger), sa.Column("attempt", sa.Integer),
        sa.Column("kind", sa.String), sa.Column("step", sa.BigInteger), sa.Column("t", sa.Float(53)),
        sa.Column("data", sa.JSON),
    )  # fmt: skip
    points = sa.Table(
        "metric_points", tables,
        sa.Column("run_id", sa.String), sa.Column("key", sa.String), sa.Column("step", sa.BigInteger),
        sa.Column("value", sa.Float(53)), sa.Column("t", sa.Float(53)), sa.Column("attempt", sa.Integer),
    )  # fmt: skip
    return events, points
