"""The database's schema: bring it to what this code needs, say where it is.

`python -m server.migrate` upgrades the configured database; `--to REVISION` takes it back for an older
version of the code. Alembic is imported on use only, so that importing the server stays quick. Not covered:
two processes that upgrade one PostgreSQL at the same moment are queued by an advisory lock; SQLite queues
them by its own file lock.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nanochat.paths import repo_dir

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection, Engine

#: any fixed number: who migrates holds this PostgreSQL advisory lock
_LOCK = 7_306_001


class NewerDatabase(RuntimeError):
    """The database was migrated by a later version of this code."""


def config() -> Config:
    """Alembic's configuration, in code: there is no alembic.ini to keep in step."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(repo_dir() / "migrations").replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def head() -> str:
    """The revision this code needs."""
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory.from_config(config()).get_current_head())


def current(connection: Connection) -> str | None:
    """The revision the database is at; None when it is empty."""
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def upgrade(sqlalchemy_url: str, revision: str = "head") -> None:
    """Bring the database to `revision`. Raises NewerDatabase when it is ahead of this code."""
    _run(sqlalchemy_url, revision, down=False)


def downgrade(sqlalchemy_url: str, revision: str = "base") -> None:
    """Take the database back to `revision`; what later revisions added is dropped."""
    _run(sqlalchemy_url, revision, down=True)


def _run(sqlalchemy_url: str, revision: str, *, down: bool) -> None:
    from alembic import command
    from alembic.script import ScriptDirectory
    from sqlalchemy import text

    engine = sync_engine(sqlalchemy_url)
    made = config()
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            found = current(connection)
            known = {script.revision for script in ScriptDirectory.from_config(made).walk_revisions()}
            if found is not None and found not in known:
                raise NewerDatabase(
                    f"the database is at revision {found}, which this version does not know: "
                    "install the version that wrote it, or point NANOCHAT_DATABASE_URL elsewhere; that "
                    f"version takes it back with `python -m server.migrate --to {head()}`, and drops what "
                    "is newer"
                )
            made.attributes["connection"] = connection
            (command.downgrade if down else command.upgrade)(made, revision)
    finally:
        engine.dispose()


def sync_engine(sqlalchemy_url: str) -> Engine:
    """A plain engine for the URL of an async one (psycopg serves both)."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    return create_engine(sqlalchemy_url.replace("sqlite+aiosqlite:", "sqlite:", 1), poolclass=NullPool)


def main(argv: list[str] | None = None) -> int:
    """Bring the configured database to this version's revision, or back to an older one; say where it is."""
    import argparse

    from alembic.util import CommandError

    from server.settings import Settings

    parser = argparse.ArgumentParser(prog="python -m server.migrate", description=main.__doc__)
    parser.add_argument(
        "--to", metavar="REVISION", help="the revision that an older version needs; what is newer is dropped"
    )
    back_to: str | None = parser.parse_args(argv).to
    settings = Settings()
    settings.base_dir.mkdir(parents=True, exist_ok=True)
    try:
        if back_to is None:
            upgrade(settings.sqlalchemy_url)
        else:
            downgrade(settings.sqlalchemy_url, back_to)
    except (NewerDatabase, CommandError) as error:
        print(f"migrate: {error}", file=sys.stderr)
        return 1
    print(f"database is at revision {back_to or head()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
