"""Engine processes, one per loaded model: started on first use, ended when idle or to make room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from server.db import Database
from server.inference.catalog import Model, find
from server.inference.engine_process import EngineProcess
from server.inference.errors import OpenAIError, model_not_found
from server.settings import Settings

log = logging.getLogger(__name__)
MAX_LOADED = 2
LOOK_S = 5.0


class EngineManager:
    """Finds or starts the engine of a model. Never two loads of the same model at once.

    Not covered: GPU memory shared with a training run (an engine may have to leave for it).
    """

    def __init__(self, settings: Settings, db: Database) -> None:
        self.settings, self.db = settings, db
        self._engines: dict[str, EngineProcess] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._idle_watch: asyncio.Task[None] | None = None

    async def model(self, name: str) -> Model:
        """The model called `name`. Raises OpenAIError 404."""
        async with self.db.read() as session:
            found = await find(session, name)
        if found is None:
            raise model_not_found(name)
        return found

    async def engine(self, model: Model) -> EngineProcess:
        """A running engine of the model, started when there is none. Raises OpenAIError."""
        if self._idle_watch is None:
            self._idle_watch = asyncio.create_task(self._unload_idle(), name="engines")
        async with self._locks.setdefault(model.checkpoint_id, asyncio.Lock()):
            engine = self._engines.get(model.checkpoint_id)
            if engine is not None and not engine.dead:
                return engine
            if engine is not None:
                del self._engines[model.checkpoint_id]
                await engine.close()
            await self._make_room()
            engine = EngineProcess(self._directory(model))
            self._engines[model.checkpoint_id] = engine
            started = time.monotonic()
            try:
                await engine.start()
            except BaseException:
                self._engines.pop(model.checkpoint_id, None)
                raise
            log.info("loaded %s in %.1f s", model.name, time.monotonic() - started)
            return engine

    def loaded(self) -> list[str]:
        """Ids of the checkpoints that have an engine."""
        return list(self._engines)

    async def close(self) -> None:
        """End every engine."""
        if self._idle_watch is not None:
            self._idle_watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._idle_watch
        engines, self._engines = list(self._engines.values()), {}
        await asyncio.gather(*(engine.close() for engine in engines))

    def _directory(self, model: Model) -> Path:
        try:
            directory = model.directory(self.settings.base_dir)
        except ValueError:
            raise model_not_found(model.name) from None
        if not directory.is_dir():
            raise OpenAIError(
                404, f"The files of model {model.name!r} are not on this host.", code="model_not_found"
            )
        return directory

    async def _make_room(self) -> None:
        """Unload what was used least recently; a model that is answering right now stays."""
        while len(self._engines) >= MAX_LOADED:
            idle = [(engine.last_used, key) for key, engine in self._engines.items() if not engine.busy]
            if not idle:
                raise OpenAIError(
                    503,
                    "All loaded models are busy; try again in a moment.",
                    code="overloaded",
                    retry_after_s=5,
                )
            await self._engines.pop(min(idle)[1]).close()

    async def _unload_idle(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            limit = time.monotonic() - self.settings.engine_idle_s
            for key, engine in list(self._engines.items()):
                if not engine.busy and engine.last_used < limit:
                    del self._engines[key]
                    await engine.close()
                    log.info("unloaded an idle model")
