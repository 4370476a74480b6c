"""The loop that makes what is match what is wanted. Every step can be repeated."""

from __future__ import annotations

from server.db import Database
from server.live.hub import Hub
from server.settings import Settings


class Reconciler:
    def __init__(self, settings: Settings, db: Database, hub: Hub) -> None:
        self.settings, self.db, self.hub = settings, db, hub

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def hint(self) -> None:
        """Look soon: something changed."""
