"""Keys straight in the database, with no server running: the first one, and those of containers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import delete, inspect, select
from sqlalchemy.orm import Session

from nanochat_client.types.keys import KeyCreate, Scope
from server import migrate
from server.keys import repository, secret
from server.models import Key
from server.settings import Settings


def any_key(settings: Settings) -> bool:
    """Whether there is a key; False also where there is no database yet. Creates nothing."""
    url = settings.sqlalchemy_url
    if url.startswith("sqlite") and not Path(url.partition(":///")[2]).exists():
        return False
    engine = migrate.sync_engine(url)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table(Key.__tablename__):
                return False
            return connection.execute(select(Key.id).limit(1)).first() is not None
    finally:
        engine.dispose()


def create(settings: Settings, body: KeyCreate) -> str:
    """A fresh key in the database of `settings`, which is migrated first."""
    row, key = repository.new(body)
    with _session(settings) as session:
        session.add(row)
        session.commit()
    return key


def listed(settings: Settings) -> Sequence[Key]:
    with _session(settings) as session:
        return session.scalars(select(Key).order_by(Key.created_at)).all()


def revoke(settings: Settings, key_id: str) -> bool:
    """False when there is no such key."""
    with _session(settings) as session:
        found = session.execute(delete(Key).where(Key.id == key_id).returning(Key.id)).first()
        session.commit()
        return found is not None


def ensure(settings: Settings, file: Path, body: KeyCreate) -> bool:
    """The key in `file` is stored; where there is no file a fresh one is written to it (mode 0600).

    True when something was stored. Raises ValueError when the file holds no key, OSError.
    """
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        _write(file, create(settings, body))
        return True
    parsed = secret.parse(text)
    if parsed is None:
        raise ValueError(
            f"{file} holds no key: it looks like nck_<id>_<secret>; without the file one is made"
        )
    key_id, value = parsed
    with _session(settings) as session:
        row = session.get(Key, key_id)
        if row is not None and row.digest == secret.digest(value):
            return False
        if row is not None:
            raise ValueError(f"{file}: there is another key with the id {key_id}: revoke that one first")
        session.add(repository.row_of(key_id, secret.digest(value), body))
        session.commit()
    return True


def bootstrap(settings: Settings) -> None:
    """What NANOCHAT_BOOTSTRAP_KEY_FILE asks for. Raises ValueError, OSError."""
    if settings.bootstrap_key_file:
        body = KeyCreate(name="bootstrap", scopes=[Scope.ADMIN])
        ensure(settings, Path(settings.bootstrap_key_file), body)


def _write(file: Path, key: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(key + "\n")


def _session(settings: Settings) -> Session:
    settings.base_dir.mkdir(parents=True, exist_ok=True)
    migrate.upgrade(settings.sqlalchemy_url)
    return Session(migrate.sync_engine(settings.sqlalchemy_url), expire_on_commit=False)
