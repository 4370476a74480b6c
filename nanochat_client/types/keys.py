"""Wire types of keys: who may call the service, and what for."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from nanochat_client.types.wire import NUMBER, Request, Wire


class Scope(StrEnum):
    """What a key may do. `admin` may do all but a worker's calls."""

    READ = "read"
    """Look at runs, logs, metrics, checkpoints, workers."""
    SUBMIT = "submit"
    """Start runs and pipelines."""
    OPERATE = "operate"
    """Stop, pause, resume, retry, change and delete runs; promote checkpoints; load models."""
    INFER = "infer"
    """Use models: /v1, /tokenize."""
    ADMIN = "admin"
    """All of these, and keys."""
    WORKER = "worker"
    """The calls below /internal, and nothing else."""


USER = (Scope.READ, Scope.SUBMIT, Scope.OPERATE, Scope.INFER)


class KeyCreate(Request):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    """Whose key it is."""
    scopes: list[Scope] = Field(default_factory=lambda: list(USER), min_length=1, max_length=len(Scope))
    expires_in_s: Annotated[int, Field(ge=60, le=10 * 365 * 86_400), NUMBER] | None = None
    """Absent: it does not expire."""


class Key(Wire):
    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    used_at: datetime | None
    """Last use, to the minute."""


class KeyCreated(Key):
    key: str
    """The secret: `nck_<id>_…`. It is shown this once."""


class Login(Request):
    key: Annotated[str, Field(max_length=256)]


class Session(Wire):
    """Who is signed in. `csrf`: what requests that change something send as `x-csrf-token`."""

    name: str
    scopes: list[Scope]
    csrf: str
    expires_at: datetime
