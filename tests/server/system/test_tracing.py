"""Traces arrive at a collector when they are asked for; otherwise nothing of them is even imported."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from server.settings import Settings
from tests.services import Service

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
pytest.importorskip("opentelemetry.sdk", reason="needs the extra `tracing`")


class Collector:
    """Takes OTLP over HTTP, as a collector does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.services.add(names["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    yield found
    found.server.shutdown()
    found.server.server_close()


def said(span: Any) -> dict[str, Any]:
    kinds = ("string_value", "int_value")
    return {a.key: next(getattr(a.value, k) for k in kinds if a.value.HasField(k)) for a in span.attributes}


def test_requests_and_their_statements_are_traced_on_from_the_caller(
    settings: Settings, collector: Collector
) -> None:
    service = Service(settings.model_copy(update={"otlp_url": collector.url})).start()
    trace_id, parent = "ab" * 16, "cd" * 8
    headers = {"traceparent": f"00-{trace_id}-{parent}-01"}
    assert service.client.get("/runs/nobody", params={"secret": "x"}, headers=headers).status_code == 404
    assert service.client.get("/healthz").status_code == 200
    assert service.client.get("/nothing/here").status_code == 404
    service.stop()
    assert collector.services == {"nanochat"}
    by_name = {span.name: span for span in collector.spans}
    assert "GET" in by_name and "GET /healthz" not in by_name
    request = by_name["GET /runs/{run_id}"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (trace_id, parent)
    assert said(request)["http.response.status_code"] == 404 and said(request)["url.path"] == "/runs/nobody"
    below = [span for span in collector.spans if span.parent_span_id == request.span_id]
    assert "SELECT" in {span.name for span in below}
    assert all("nobody" not in said(span)["db.query.text"] for span in below)
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano for span in collector.spans)


@sqlite_only
def test_a_collector_that_is_away_harms_nothing(settings: Settings) -> None:
    service = Service(settings.model_copy(update={"otlp_url": "http://127.0.0.1:9"})).start()
    assert service.client.get("/runs").status_code == 200
    service.stop()


def test_without_the_setting_no_exporter_is_imported() -> None:
    code = (
        "import sys; from server.app import create_app; from server.settings import Settings;"
        "create_app(Settings());"
        "sys.exit(any(name.startswith('opentelemetry.exporter') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@sqlite_only
def test_without_the_packages_the_server_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.app import create_app
    from server.tracing import NotInstalled

    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(NotInstalled, match=r"nanochat-service\[tracing\]"):
        create_app(settings.model_copy(update={"otlp_url": "http://127.0.0.1:9"}))
