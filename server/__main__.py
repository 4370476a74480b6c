"""`python -m server`: check the surroundings, migrate, serve. What is wrong is said in one sentence."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import tempfile

from pydantic import ValidationError

from server import exposure, migrate
from server.settings import Settings


class CannotStart(Exception):
    """One sentence for the person at the terminal: what is wrong and what to do."""


def check_exposure(settings: Settings) -> None:
    """Who can reach the service from elsewhere needs a key, so there must be one. Raises CannotStart."""
    from sqlalchemy.exc import SQLAlchemyError

    from server.keys import local

    exposed = exposure.is_exposed(settings)
    if not exposed and settings.auth != "on":
        return
    if exposed and settings.auth == "off":
        raise CannotStart(
            f"NANOCHAT_AUTH=off with NANOCHAT_HOST={settings.host} (or NANOCHAT_ALLOWED_HOSTS) would let "
            "everybody who reaches it run programs here: use NANOCHAT_AUTH=auto"
        )
    try:
        found = bool(settings.bootstrap_key_file) or local.any_key(settings)
    except SQLAlchemyError as error:
        raise CannotStart(_database(error)) from None
    if not found:
        why = f"NANOCHAT_HOST={settings.host}" if exposed else "NANOCHAT_AUTH=on"
        raise CannotStart(
            f"{why} needs a key and there is none yet: make one with `nanochat keys create --local`, "
            "then start again"
        )


def check_base_dir(settings: Settings) -> None:
    """The base directory exists and can be written to. Raises CannotStart."""
    try:
        settings.base_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.base_dir):
            pass
    except OSError as error:
        raise CannotStart(
            f"cannot write to {settings.base_dir} ({error.strerror}): point NANOCHAT_BASE_DIR to a directory "
            "of yours"
        ) from None


def migrate_database(settings: Settings) -> None:
    """Bring the schema up to date. Raises CannotStart."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        migrate.upgrade(settings.sqlalchemy_url)
    except migrate.NewerDatabase as error:
        raise CannotStart(str(error)) from None
    except SQLAlchemyError as error:
        raise CannotStart(_database(error)) from None


def bootstrap_key(settings: Settings) -> None:
    """Store or write the key of NANOCHAT_BOOTSTRAP_KEY_FILE. Raises CannotStart."""
    from server.keys import local

    try:
        local.bootstrap(settings)
    except (ValueError, OSError) as error:
        raise CannotStart(f"NANOCHAT_BOOTSTRAP_KEY_FILE: {error}") from None


def _database(error: Exception) -> str:
    cause = str(getattr(error, "orig", None) or error).splitlines()[0]
    return f"cannot use the database: {cause}; check NANOCHAT_DATABASE_URL"


def bind(settings: Settings) -> socket.socket:
    """A bound socket, which does not listen yet: what comes before the server is loaded is refused, so that a
    proxy turns to another one. Raises CannotStart when the port is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise CannotStart(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): stop what uses the port "
            "or choose another with NANOCHAT_PORT (`make up PORT=8001`)"
        ) from None
    return sock


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    check_exposure(settings)
    check_base_dir(settings)
    sock = bind(settings)
    migrate_database(settings)
    bootstrap_key(settings)

    from server import drain, patience, tokens
    from server.app import create_app
    from server.redact import configure_logging
    from server.tracing import NotInstalled

    token = tokens.ensure(settings)
    configure_logging(settings, secrets=(token,))
    try:
        app = create_app(settings)
    except NotInstalled as error:
        raise CannotStart(str(error)) from None
    gc.collect()
    gc.freeze()  # 140,000 objects that stay: looking through them stops every stream for 70 to 180 ms
    server = drain.make(
        app,
        settings.drain_s,
        **patience.OPTIONS,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,
        ws_per_message_deflate=False,  # its windows are 300 KB a reader, its time is ours
        timeout_graceful_shutdown=5,
    )
    server.run(sockets=[sock])


def _leave(*_: object) -> None:
    raise SystemExit(0)


def main() -> int:
    signal.signal(signal.SIGTERM, _leave)  # uvicorn shuts down first, then hands the signal on to us
    try:
        settings = Settings()
        os.environ["NANOCHAT_BASE_DIR"] = str(settings.base_dir)  # every process we start inherits it
        serve(settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = "NANOCHAT_" + "_".join(str(part) for part in first["loc"]).upper()
        print(f"server: {name}: {first['msg']}, got {first['input']!r}", file=sys.stderr)
        return 2
    except CannotStart as error:
        print(f"server: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
