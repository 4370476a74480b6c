"""What route functions ask for: sessions and the process-wide services, as annotated types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy.ext.asyncio import AsyncSession

from server.db import Database
from server.live.hub import Hub
from server.settings import Settings

if TYPE_CHECKING:
    from server.exports.exporter import Exporter
    from server.inference.engines import EngineManager
    from server.reconcile import Reconciler


@dataclass
class Services:
    """Everything that lives as long as the server process; at `app.state.services`."""

    settings: Settings
    db: Database
    hub: Hub
    reconciler: Reconciler
    engines: EngineManager
    exporter: Exporter


def services(connection: HTTPConnection) -> Services:
    return cast(Services, connection.app.state.services)


async def _read(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    async with services(connection).db.read() as session:
        yield session


async def _write(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    async with services(connection).db.write() as session:
        yield session


ServicesDep = Annotated[Services, Depends(services)]
Read = Annotated[AsyncSession, Depends(_read)]
#: committed when the route function has returned, before the answer is sent
Write = Annotated[AsyncSession, Depends(_write, scope="function")]
