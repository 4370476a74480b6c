"""The worker token: the secret that everything under /internal asks for.

NANOCHAT_WORKER_TOKEN wins; else the file `worker.token` (mode 0600) in the base directory, made at the
first start, so that a worker on the same host finds it. A key with the scope `worker` does as well: that is
the way to a token per host that can be revoked. Not covered: changing this one without a restart.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from fastapi import Depends, Request

from nanochat_client.types.keys import Scope
from server.problems import Unauthorized
from server.settings import Settings


def token_file(base_dir: Path) -> Path:
    return base_dir / "worker.token"


def ensure(settings: Settings) -> str:
    """The token of `settings`; a fresh one is written to its file when there is none."""
    if given := settings.worker_token.get_secret_value():
        return given
    path = token_file(settings.base_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".worker.token.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32))
    try:
        os.link(fresh, path)  # never replaces: of two servers that start at once, one wins
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_text().strip()


def require_worker(request: Request) -> None:
    """Refuses (401) a request that `server.auth` did not let through as a worker's."""
    caller = getattr(request.state, "caller", None)
    if caller is None or Scope.WORKER not in caller.scopes:
        raise Unauthorized(
            "this is for workers: send `Authorization: Bearer <worker token>` (NANOCHAT_WORKER_TOKEN, "
            "else the file worker.token in the base directory)"
        )


#: for `APIRouter(dependencies=[WorkerOnly])`
WorkerOnly = Depends(require_worker)
