"""Engine processes, one per loaded model."""

from __future__ import annotations

from server.db import Database
from server.settings import Settings


class EngineManager:
    def __init__(self, settings: Settings, db: Database) -> None:
        self.settings, self.db = settings, db

    async def close(self) -> None: ...
