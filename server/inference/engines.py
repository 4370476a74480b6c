"""Engine processes, one per loaded model: started on first use; ended when idle, for others, or for a run."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.background import end
from server.checkpoints import files
from server.db import Database
from server.inference.catalog import Model, find
from server.inference.engine_process import EngineProcess
from server.inference.errors import OpenAIError, model_loading, model_not_found, model_unloaded, overloaded
from server.inference.gpus import Place, gpus_here, is_here, place
from server.inference.numbers import InferenceNumbers
from server.settings import Settings

log = logging.getLogger(__name__)
LOOK_S = 5.0
ENGINE = (sys.executable, "-m", "nanochat.engine")


@dataclass
class Loaded:
    """An engine, the model it has and the GPU it was given."""

    engine: EngineProcess
    model: Model
    place: Place


class EngineManager:
    """Finds or starts the engine of a model. Loads happen one after the other, shared by all who wait.

    `command` starts an engine; tests put a stub there.
    """

    command: Sequence[str] = ENGINE

    def __init__(self, settings: Settings, db: Database, numbers: InferenceNumbers) -> None:
        self.settings, self.db, self.numbers = settings, db, numbers
        self._engines: dict[str, Loaded] = {}
        self._loads: dict[str, asyncio.Task[EngineProcess]] = {}
        self._loading = asyncio.Lock()
        self._idle_watch: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def model(self, name: str) -> Model:
        """The model called `name`. Raises OpenAIError 404."""
        async with self.db.read() as session:
            found = await find(session, name)
        if found is None:
            raise model_not_found(name)
        return found

    async def engine(self, model: Model) -> EngineProcess:
        """A running engine of the model, started when there is none.

        Raises OpenAIError; among others 503 `model_loading` when it takes too long, while the load goes on.
        """
        loaded = self._engines.get(model.checkpoint_id)
        if loaded is not None and loaded.engine.ready:
            return loaded.engine
        load = self._loads.get(model.checkpoint_id)
        if load is None:
            load = asyncio.create_task(self._load(model), name=f"load {model.canonical}")
            self._loads[model.checkpoint_id] = load
            load.add_done_callback(lambda task: self._load_done(model, task))
        wait_s = self.settings.engine_load_wait_s
        try:  # shielded: a client that leaves, or is told to come back, does not stop the load for others
            return await asyncio.wait_for(asyncio.shield(load), wait_s)
        except TimeoutError:
            raise model_loading(model.name, wait_s) from None
        except asyncio.CancelledError:
            if load.cancelled():
                raise model_unloaded("its load was cancelled") from None
            raise

    def loaded(self) -> dict[str, EngineProcess]:
        """Engines that are up, by checkpoint id."""
        return {key: loaded.engine for key, loaded in self._engines.items() if loaded.engine.ready}

    async def unload(self, model: Model) -> bool:
        """End the model's engine or its load; requests that run in it get an error. False: it had none."""
        if (load := self._loads.get(model.checkpoint_id)) is not None:
            load.cancel()
            await asyncio.wait([load])
            return True
        return await self._end(model.checkpoint_id, "somebody asked for it")

    def gpus_claimed(self, worker_id: str, gpus: Collection[int]) -> None:
        """A run got these GPUs of a worker: engines on them leave when the policy says so.

        They do so while its trainer starts, which takes longer. Call it when the claim is durable.
        """
        if gpus and self.settings.engine_gpu != "refuse" and self._engines:
            task = asyncio.create_task(self._make_way(worker_id, frozenset(gpus)), name="make way")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _make_way(self, worker_id: str, gpus: frozenset[int]) -> None:
        async with self.db.read() as session:
            if not await is_here(session, worker_id):
                return
        why = "a training run needs its GPU"
        for key, loaded in list(self._engines.items()):
            if not loaded.place.on(gpus):
                continue
            if (load := self._loads.get(key)) is not None:
                load.cancel()
            elif loaded.engine.on_gpu:
                await self._end(key, why)

    async def close(self) -> None:
        """End every engine."""
        await end(self._idle_watch)
        if loads := list(self._loads.values()):
            for load in loads:
                load.cancel()
            await asyncio.wait(loads)
        await asyncio.gather(*(self._end(key, "the server stops") for key in list(self._engines)))

    # ------------------------------------------------------------ loading

    async def _load(self, model: Model) -> EngineProcess:
        directory = await self._directory(model)
        async with self._loading:
            await self._end(model.checkpoint_id, "it died")
            await self._make_room()
            where = await self._place()
            engine = EngineProcess(
                model.canonical,
                [*self.command, "--checkpoint", str(directory), *self._options(where, model)],
                self.numbers.of(model.canonical),
                env={**where.env, "NANOCHAT_ENGINE_KEY": self.settings.engine_key.get_secret_value()},
                most=self.settings.engine_queue,
                hang_s=self.settings.engine_hang_s,
            )
            started = time.monotonic()
            self._engines[model.checkpoint_id] = Loaded(engine, model, where)
            try:
                await engine.start()
            except BaseException:
                self._engines.pop(model.checkpoint_id, None)
                raise
        log.info("loaded %s in %.1f s", model.canonical, time.monotonic() - started)
        if self._idle_watch is None:
            self._idle_watch = asyncio.create_task(self._unload_idle(), name="engines")
        return engine

    def _load_done(self, model: Model, task: asyncio.Task[EngineProcess]) -> None:
        self._loads.pop(model.checkpoint_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("%s did not load: %s", model.canonical, error)

    def _options(self, where: Place, model: Model) -> list[str]:
        """Only what differs from the engine's own defaults."""
        known = self.settings
        if known.engine_url:
            return ["--remote", known.engine_url, "--model", model.canonical]
        options = ["--slots", str(known.engine_slots)]
        options += ["--threads", str(known.engine_threads)] if known.engine_threads else []
        options += ["--dtype", known.engine_dtype] if known.engine_dtype != "auto" else []
        options += ["--quantize", known.engine_quantize] if known.engine_quantize != "none" else []
        options += ["--kv-gib", f"{known.engine_kv_gib:g}"] if known.engine_kv_gib else []
        options += ["--device", where.device] if where.device != "auto" else []
        return options

    async def _place(self) -> Place:
        if self.settings.engine_url:
            return Place("cpu")
        async with self.db.read() as session:
            here = await gpus_here(session)
        taken = [loaded.place.gpu for loaded in self._engines.values() if loaded.place.gpu is not None]
        return place(here, self.settings.engine_gpu, taken)

    async def _directory(self, model: Model) -> Path:
        directory = await files.directory(self.settings, model.path)
        if directory is None:
            message = f"The files of model {model.name!r} are not on this host."
            raise OpenAIError(404, message, code="model_not_found", param="model")
        return directory

    # ------------------------------------------------------------ unloading

    async def _make_room(self) -> None:
        """Unload what was used least recently; a model that is answering right now stays."""
        while len(self._engines) >= self.settings.engine_models:
            idle = [(e.engine.last_used, key) for key, e in self._engines.items() if not e.engine.busy]
            if not idle:
                raise overloaded("All loaded models are busy; try again in a moment.", retry_after_s=5)
            await self._end(min(idle)[1], "another model needed its place")

    async def _end(self, key: str, why: str) -> bool:
        loaded = self._engines.pop(key, None)
        if loaded is None:
            return False
        log.info("unloading %s: %s", loaded.model.canonical, why)
        await loaded.engine.close(model_unloaded(why))
        return True

    async def _unload_idle(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_S, self.settings.engine_idle_s / 4))
            limit = time.monotonic() - self.settings.engine_idle_s
            for key, loaded in list(self._engines.items()):
                if not loaded.engine.busy and loaded.engine.last_used < limit:
                    await self._end(key, f"nobody asked for it for {self.settings.engine_idle_s:.0f} s")
