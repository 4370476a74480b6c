"""OpenTelemetry traces, for those who ask for them with NANOCHAT_OTLP_URL; otherwise no exporter is imported.

FastAPI makes one span a request, under its route's template, continuing the caller's `traceparent`; below it
this adds one a database statement, without its values. What the SDK reads from the environment counts
(OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS). Not covered: WebSockets, which last for
hours, the worker and the engine processes. Needs `pip install nanochat-service[tracing]`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from fastapi.telemetry import TelemetryConfig

from server.app_version import VERSION
from server.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

    from server.db import Database

#: what a collector may take for a batch; so long a server that stops may wait for one that is away
EXPORT_S = 3
#: asked for all the time, and of no interest
SILENT = ("/healthz", "/readyz", "/metrics", "/ui")


class NotInstalled(RuntimeError):
    """Traces are asked for and the packages are not there."""


class Tracing:
    """One provider per app."""

    def __init__(self, url: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise NotInstalled(
                f"NANOCHAT_OTLP_URL needs packages that are not installed ({error.name}): "
                "pip install 'nanochat-service[tracing]', or unset it"
            ) from None
        named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", "nanochat"), "service.version": VERSION}
        self.provider: TracerProvider = TracerProvider(resource=Resource.create(named))
        exporter = OTLPSpanExporter(endpoint=f"{url.rstrip('/')}/v1/traces", timeout=EXPORT_S)
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer: Tracer = self.provider.get_tracer("nanochat")

    async def close(self) -> None:
        """Send what is left; takes as long as the collector does, a few seconds at most."""
        await asyncio.to_thread(self.provider.shutdown)

    def watch(self, db: Database) -> None:
        """A span for every statement that is executed within a request."""
        from opentelemetry import trace
        from sqlalchemy import event

        def before(conn: Any, cursor: Any, statement: str, *rest: Any) -> None:
            if trace.get_current_span().is_recording():
                verb = statement.lstrip().partition(" ")[0].upper()
                attributes = {"db.system.name": conn.dialect.name, "db.query.text": statement}
                span = self.tracer.start_span(verb, kind=trace.SpanKind.CLIENT, attributes=attributes)
                conn.info.setdefault("spans", []).append(span)

        def after(conn: Any, *rest: Any) -> None:
            if spans := conn.info.get("spans"):
                spans.pop().end()

        def failed(context: Any) -> None:
            if context.connection is not None and (spans := context.connection.info.get("spans")):
                span = spans.pop()
                span.set_status(trace.StatusCode.ERROR, type(context.original_exception).__name__)
                span.end()

        for engine in db.engines():
            event.listen(engine.sync_engine, "before_cursor_execute", before)
            event.listen(engine.sync_engine, "after_cursor_execute", after)
            event.listen(engine.sync_engine, "handle_error", failed)


def asked_for(settings: Settings) -> Tracing | None:
    """None: nobody wants traces. Raises NotInstalled."""
    return Tracing(settings.otlp_url) if settings.otlp_url else None


def config(tracing: Tracing | None) -> TelemetryConfig:
    """What FastAPI is told. It measures nothing and looks into no environment by itself."""
    wanted = TelemetryConfig(
        tracing=tracing is not None, metrics=False, logs=False, operation_spans=False, auto_configure=False
    )
    if tracing is not None:
        wanted["tracer_provider"], wanted["exclude"] = tracing.provider, _is_silent
    return wanted


def _is_silent(scope: MutableMapping[str, Any]) -> bool:
    return scope["type"] != "http" or str(scope["path"]).startswith(SILENT)
