"""The app factory: routers, middleware and what lives as long as the process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import SecretStr

from server import docs_page, document, middleware, problems, tokens, web
from server import tracing as traces
from server.alerts.lookout import Lookout
from server.alerts.routes import router as alerts
from server.app_version import VERSION
from server.attempts.routes import router as attempts
from server.checkpoints.evaluations import router as evaluations
from server.checkpoints.routes import router as checkpoints
from server.db import Database
from server.deps import Services
from server.exports.exporter import Exporter
from server.exports.routes import router as exports
from server.files.keeper import Keeper
from server.files.routes import router as files
from server.gangs.routes import router as gangs
from server.inference.engines import EngineManager
from server.inference.routes import router as inference
from server.keys.ring import KeyRing
from server.keys.routes import router as keys
from server.live.hub import Hub
from server.live.replicas import Replicas
from server.live.routes import router as live
from server.pipelines.routes import router as pipelines
from server.plans.routes import router as plans
from server.reconcile import Reconciler
from server.reports.routes import router as reports
from server.runs.routes import router as runs
from server.settings import Settings
from server.stages.routes import router as stages
from server.system import metrics
from server.system.routes import router as system
from server.telemetry.retention import Retention
from server.telemetry.routes import router as telemetry
from server.webhooks.courier import Courier
from server.webhooks.routes import router as webhooks
from server.workers.routes import router as workers


def create_app(settings: Settings) -> FastAPI:
    """The service for `settings`. Nothing is opened before the app starts (lifespan)."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        known = settings.model_copy(update={"worker_token": SecretStr(tokens.ensure(settings))})
        db, hub = Database(known.sqlalchemy_url), Hub()
        reconciler = Reconciler(known, db, hub)
        engines, exporter = EngineManager(known, db, numbers.inference), Exporter(known)
        app.state.services = Services(known, db, hub, reconciler, engines, exporter)
        app.state.keys = KeyRing(known, db)
        app.state.courier = courier = Courier(known, db)
        lookout = Lookout(known, db, hub)
        retention = Retention(known, db)
        app.state.files = keeper = Keeper(known, db)
        if tracing is not None:
            tracing.watch(db)
        app.state.replicas = replicas = Replicas(known.sqlalchemy_url, hub)
        parts = (replicas, reconciler, courier, lookout, retention, exporter, keeper)
        for part in parts:
            await part.start()
        try:
            async with numbers.watching(), app.state.keys.noting_use():
                yield
        finally:
            for part in reversed(parts):
                await part.stop()
            await engines.close()
            await db.close()
            if tracing is not None:
                await tracing.close()

    tracing = traces.asked_for(settings)
    app = FastAPI(
        title="nanochat training service",
        version=VERSION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        telemetry=traces.config(tracing),
    )
    problems.install(app)
    for router in (
        stages, plans, runs, pipelines, telemetry, live, checkpoints, exports, evaluations, reports,
        inference, workers, system, attempts, gangs, keys, webhooks, alerts, files,
    ):  # fmt: skip
        app.include_router(router)
    document.install(app)
    docs_page.install(app)
    web.install(app)
    numbers = metrics.install(app)
    middleware.install(app, settings)
    return app
