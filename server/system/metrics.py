"""Numbers for Prometheus: requests, runs, queue, how late the event loop is, and inference."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat_client.types import AlertKind as Kind
from nanochat_client.types import RunState
from server.background import end
from server.inference.numbers import InferenceNumbers
from server.system.host_numbers import HostNumbers

SAMPLE_S = 0.1
DELAY_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
LAG_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 3600.0)
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """One registry per app, so that two apps in one process (tests) do not share counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nanochat_requests", "HTTP requests answered.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "nanochat_request_seconds", "Time until the answer was sent.", ["method", "route"],
            registry=self.registry, buckets=BUCKETS_S,
        )  # fmt: skip
        self.runs = Gauge("nanochat_runs", "Runs by state.", ["state"], registry=self.registry)
        self.queue = Gauge(
            "nanochat_queue_depth", "Wake-up messages waiting, by host.", ["host"], registry=self.registry
        )
        self.queue_up = Gauge("nanochat_queue_up", "1 when the queue answers.", registry=self.registry)
        self.workers = Gauge("nanochat_workers_alive", "Workers that beat.", registry=self.registry)
        self.loop_delay = Histogram(
            "nanochat_event_loop_delay_seconds", "How late the event loop woke a timer.",
            buckets=DELAY_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.ingest_lag = Histogram(
            "nanochat_ingest_lag_seconds", "From an event's writing, on the trainer's clock, to its storing.",
            buckets=LAG_BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.listening = Gauge(
            "nanochat_replicas_listening", "1 when other servers can wake readers here (PostgreSQL).",
            registry=self.registry,
        )  # fmt: skip
        self.alerts = Gauge(
            "nanochat_alerts_open", "Alerts that are not over.", ["kind"], registry=self.registry
        )
        self.deliveries = Gauge(
            "nanochat_webhook_messages_pending", "Messages for webhooks to be delivered.",
            registry=self.registry,
        )  # fmt: skip
        self.hosts = HostNumbers(self.registry)
        self.slow_readers = Counter(
            "nanochat_slow_readers_cut", "Readers of a stream that were too slow and were closed with 4408.",
            registry=self.registry,
        )  # fmt: skip
        self.inference = InferenceNumbers()
        self.registry.register(self.inference)

    def set_runs(self, by_state: dict[str, int]) -> None:
        for state in RunState:
            self.runs.labels(state.value).set(by_state.get(state, 0))

    def set_alerts(self, kinds: list[str]) -> None:
        for kind in Kind:
            self.alerts.labels(str(kind)).set(kinds.count(kind))

    def text(self) -> bytes:
        return generate_latest(self.registry)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Sample the event loop's delay as long as the block runs."""
        task = asyncio.create_task(self._sample(), name="event-loop-delay")
        try:
            yield
        finally:
            await end(task)

    async def _sample(self) -> None:
        while True:
            started = time.perf_counter()
            await asyncio.sleep(SAMPLE_S)
            self.loop_delay.observe(max(0.0, time.perf_counter() - started - SAMPLE_S))


class CountRequests:
    """Pure ASGI: counts every HTTP answer under its route's template, never under its raw path."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            return await self.app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", None) or "unmatched"
            self.metrics.requests.labels(scope["method"], route, str(status)).inc()
            self.metrics.seconds.labels(scope["method"], route).observe(time.perf_counter() - started)


def install(app: FastAPI) -> Metrics:
    """Count the app's requests; the numbers are at `app.state.metrics`."""
    metrics = Metrics()
    app.state.metrics = metrics
    app.add_middleware(CountRequests, metrics=metrics)
    return metrics
