"""`nanochat db backup FILE | restore FILE | move URL`: the database as one file, SQLite or PostgreSQL.

The file is gzipped JSON lines: the schema's revision, then every row of one consistent moment, then how many
there were. It is read into an empty database of either kind, which is migrated to the file's revision first
and to this version's afterwards. So `move` is a backup and a restore. Not covered: the artefacts in the base
directory (docs/deploy.md); a restore into a database that holds something.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from alembic.util import CommandError
from sqlalchemy import JSON, Connection, DateTime, MetaData, Table, func, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from server import migrate
from server.settings import Settings

FORMAT = 1
BATCH = 500
VERSIONS = "alembic_version"
Row = dict[str, Any]


class CannotRestore(Exception):
    """One sentence: what is wrong with the file or the database."""


class NothingThere(Exception):
    """One sentence: there is no database to save."""


def backup(sqlalchemy_url: str, file: Path) -> int:
    """Write all rows to `file` (mode 0600), whole or not at all; returns how many. Raises NothingThere."""
    _check_there(sqlalchemy_url)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    engine = migrate.sync_engine(sqlalchemy_url)
    try:
        with (
            engine.connect() as connection,
            _create(fresh) as raw,
            gzip.open(raw, "wt", encoding="utf-8") as out,
        ):
            _one_moment(connection)
            out.write(json.dumps({"nanochat": FORMAT, "revision": migrate.current(connection)}) + "\n")
            count = 0
            for table in _tables(connection):
                result = connection.execution_options(yield_per=BATCH).execute(select(table))
                for row in result.mappings():
                    values = {name: _packed(value) for name, value in row.items()}
                    out.write(json.dumps([table.name, values], ensure_ascii=False) + "\n")
                    count += 1
            out.write(json.dumps({"rows": count}) + "\n")
        fresh.replace(file)
        return count
    finally:
        fresh.unlink(missing_ok=True)
        engine.dispose()


def restore(sqlalchemy_url: str, file: Path) -> int:
    """Read `file` into an empty database; returns the number of rows. Raises CannotRestore."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        head = _head(lines)
        engine = migrate.sync_engine(sqlalchemy_url)
        try:
            _prepare(sqlalchemy_url, head["revision"])
            with engine.begin() as connection:
                count = _fill(connection, lines)
        finally:
            engine.dispose()
    migrate.upgrade(sqlalchemy_url)
    return count


def _check_there(sqlalchemy_url: str) -> None:
    """Raises NothingThere, and makes no file of a database that nobody ever used."""
    url = make_url(sqlalchemy_url)
    where = f"{url.database}" if url.get_backend_name() == "sqlite" else f"database {url.database!r}"
    found = None
    if url.get_backend_name() != "sqlite" or (url.database and Path(url.database).exists()):
        engine = migrate.sync_engine(sqlalchemy_url)
        try:
            with engine.connect() as connection:
                found = migrate.current(connection)
        finally:
            engine.dispose()
    if found is None:
        raise NothingThere(
            f"there is nothing in {where} yet: check NANOCHAT_BASE_DIR and NANOCHAT_DATABASE_URL"
        )


def _create(file: Path) -> IO[bytes]:
    file.unlink(missing_ok=True)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _one_moment(connection: Connection) -> None:
    """Everything that is read is of one moment, whoever writes meanwhile."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
    else:
        connection.exec_driver_sql("BEGIN")


def _tables(connection: Connection) -> list[Table]:
    """As they are in this database, what others refer to first."""
    known = MetaData()
    known.reflect(connection)
    for table in known.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type.none_as_null = True  # None is "no value", never JSON's null
    return [table for table in known.sorted_tables if table.name != VERSIONS]


def _head(lines: IO[str]) -> Row:
    try:
        head: Row = json.loads(lines.readline())
        if head["nanochat"] == FORMAT and isinstance(head["revision"], str):
            return head
    except (ValueError, KeyError, TypeError, OSError, EOFError):
        pass
    raise CannotRestore("this file is no backup of a nanochat database (or it is of a later version)")


def _prepare(sqlalchemy_url: str, revision: str) -> None:
    engine = migrate.sync_engine(sqlalchemy_url)
    try:
        with engine.connect() as connection:
            for table in _tables(connection):
                if connection.execute(select(func.count()).select_from(table)).scalar_one():
                    raise CannotRestore(
                        f"the database holds something ({table.name}): restore into an empty one"
                    )
            found = migrate.current(connection)
        if found not in (None, revision):
            migrate.downgrade(sqlalchemy_url)  # it is empty
        migrate.upgrade(sqlalchemy_url, revision)
    except CommandError:
        raise CannotRestore(
            f"the backup is of revision {revision}, which this version does not know: use the version "
            "that wrote it"
        ) from None
    finally:
        engine.dispose()


def _fill(connection: Connection, lines: IO[str]) -> int:
    tables = {table.name: table for table in _tables(connection)}
    count = 0
    for name, rows in _batches(lines, whole={name for name, table in tables.items() if _own_keys(table)}):
        if name is None:
            if rows[0].get("rows") != count:
                raise CannotRestore(f"the file says {rows[0].get('rows')} rows and holds {count}")
            return count
        table = tables[name]
        ordered = _parents_first(table, [_unpacked(table, row) for row in rows])
        while batch := list(islice(ordered, BATCH)):
            connection.execute(table.insert(), batch)
        count += len(rows)
    raise CannotRestore(f"the file is cut short after {count} rows")


def _batches(lines: IO[str], whole: set[str]) -> Iterator[tuple[str | None, list[Row]]]:
    """Rows of one table at a time, all at once for those in `whole`; last, under None, the closing line."""
    name: str | None = None
    rows: list[Row] = []
    try:
        for line in lines:
            entry = json.loads(line)
            here, row = (None, entry) if isinstance(entry, dict) else (entry[0], entry[1])
            if rows and (here != name or (len(rows) >= BATCH and name not in whole)):
                yield name, rows
                rows = []
            name = here
            rows.append(row)
    except (ValueError, OSError, EOFError) as error:
        raise CannotRestore(f"the file is damaged: {error}") from None
    if rows:
        yield name, rows


def _own_keys(table: Table) -> list[str]:
    """Columns that refer to rows of the same table."""
    return [key.parent.name for key in table.foreign_keys if key.column.table is table]


def _parents_first(table: Table, rows: list[Row]) -> Iterator[Row]:
    """The rows in an order in which no row refers to a later one of the same table."""
    own = _own_keys(table)
    if not own:
        yield from rows
        return
    (identity,) = (column.name for column in table.primary_key)
    waiting, done = rows, set[Any]()
    while waiting:
        ready = [row for row in waiting if all(row[name] is None or row[name] in done for name in own)]
        if not ready:
            raise CannotRestore(f"{table.name}: rows refer to rows that are not in the file")
        yield from ready
        done |= {row[identity] for row in ready}
        waiting = [row for row in waiting if row[identity] not in done]


def _packed(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return {"bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, datetime):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return aware.isoformat()
    return {"json": value} if isinstance(value, dict | list) else value


def _unpacked(table: Table, row: Row) -> Row:
    made: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            made[name] = base64.b64decode(value["bytes"]) if "bytes" in value else value["json"]
        elif isinstance(value, str) and isinstance(table.columns[name].type, DateTime):
            made[name] = datetime.fromisoformat(value)
        else:
            made[name] = value
    return made


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nanochat db")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("backup").add_argument("file", type=Path)
    verbs.add_parser("restore").add_argument("file", type=Path)
    verbs.add_parser("move").add_argument("url", help="of an empty database: postgresql://… or sqlite:///…")
    arguments = parser.parse_args(argv)
    settings = Settings()
    try:
        if arguments.verb == "backup":
            print(f"{backup(settings.sqlalchemy_url, arguments.file)} rows in {arguments.file}")
        elif arguments.verb == "restore":
            settings.base_dir.mkdir(parents=True, exist_ok=True)
            print(f"{restore(settings.sqlalchemy_url, arguments.file)} rows restored")
        else:
            target = settings.model_copy(update={"database_url": arguments.url}).sqlalchemy_url
            with tempfile.TemporaryDirectory() as directory:
                file = Path(directory) / "move.gz"
                backup(settings.sqlalchemy_url, file)
                print(f"{restore(target, file)} rows moved; now set NANOCHAT_DATABASE_URL")
    except (CannotRestore, NothingThere, OSError, migrate.NewerDatabase) as error:
        print(f"db: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        print(f"db: cannot use the database: {cause}; check NANOCHAT_DATABASE_URL", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
