"""SDK and command line of the nanochat training service.

    with Client() as client:
        run = client.runs.create("base", config="debug_cpu")
        for item in run.follow():
            print(item)

What is imported from here is loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanochat_client.aio import AsyncClient
    from nanochat_client.client import Client
    from nanochat_client.errors import (
        ApiError,
        BadRequest,
        Conflict,
        ConnectionFailed,
        ExportFailed,
        Forbidden,
        Invalid,
        NanochatError,
        NotFound,
        RunFailed,
        ServerError,
        Unauthorized,
    )

__all__ = [
    "ApiError", "AsyncClient", "BadRequest", "Client", "Conflict", "ConnectionFailed", "ExportFailed",
    "Forbidden", "Invalid", "NanochatError", "NotFound", "RunFailed", "ServerError", "Unauthorized",
]  # fmt: skip

_ROOMS = {"AsyncClient": "aio", "Client": "client"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS.get(name, 'errors')}"), name)
