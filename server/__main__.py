"""`python -m server`: check the surroundings, migrate, serve. What is wrong is said in one sentence."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import tempfile

from pydantic import ValidationError

from server import migrate
from server.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class CannotStart(Exception):
    """One sentence for the person at the terminal: what is wrong and what to do."""


def check_exposure(settings: Settings) -> None:
    """This version has no keys, so it serves this machine only. Raises CannotStart."""
    if settings.host not in LOOPBACK:
        raise CannotStart(
            f"NANOCHAT_HOST={settings.host} would open the service to the network without keys, which this "
            "version does not have: use 127.0.0.1 and an SSH tunnel"
        )
    if settings.auth == "on":
        raise CannotStart("NANOCHAT_AUTH=on needs keys, which this version does not have: use auto or off")


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
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise CannotStart(f"cannot use the database: {cause}; check NANOCHAT_DATABASE_URL") from None


def listen(settings: Settings) -> socket.socket:
    """A bound socket. Raises CannotStart when the port is taken."""
    family = socket.AF_INET6 if settings.host == "::1" else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen(1024)
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
    sock = listen(settings)
    migrate_database(settings)

    import uvicorn

    from server.app import create_app

    level = settings.log_level.upper()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    app = create_app(settings)
    gc.collect()
    gc.freeze()  # 140,000 objects that stay: looking through them stops every stream for 70 to 180 ms
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=settings.log_level,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[sock])


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
