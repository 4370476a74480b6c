"""Which route asks for what. Everything that is not listed here is refused, whoever asks.

Adding a route means adding a line: the tests walk all routes of the app and name those without one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from starlette.routing import compile_path

from nanochat_client.types.keys import Scope

ANYBODY: frozenset[Scope] = frozenset()
READ = frozenset({Scope.READ})
SUBMIT = frozenset({Scope.SUBMIT})
OPERATE = frozenset({Scope.OPERATE})
INFER = frozenset({Scope.INFER})
ADMIN = frozenset({Scope.ADMIN})
WORKER = frozenset({Scope.WORKER})

#: method and path → any one of these scopes is enough. WS: a WebSocket; HEAD is GET.
POLICY: Mapping[str, frozenset[Scope]] = {
    "GET /": ANYBODY,
    "GET /ui": ANYBODY,
    "GET /ui/{path:path}": ANYBODY,
    "GET /docs": ANYBODY,
    "GET /docs/{path:path}": ANYBODY,
    "GET /openapi.json": ANYBODY,
    "GET /healthz": ANYBODY,
    "GET /readyz": ANYBODY,
    "POST /login": ANYBODY,
    "POST /logout": ANYBODY,
    "GET /session": READ | INFER | SUBMIT | OPERATE,
    "GET /keys": ADMIN,
    "POST /keys": ADMIN,
    "DELETE /keys/{key_id}": ADMIN,
    "GET /webhooks": ADMIN,
    "POST /webhooks": ADMIN,
    "DELETE /webhooks/{webhook_id}": ADMIN,
    "GET /webhooks/{webhook_id}/deliveries": ADMIN,
    "POST /webhooks/{webhook_id}/ping": ADMIN,
    "GET /alerts": READ,
    "GET /metrics": READ,
    "GET /system": READ,
    "WS /system/stream": READ,
    "GET /workers": READ,
    "GET /stages": READ,
    "GET /stages/{stage}": READ,
    "GET /configs": READ,
    "GET /configs/{name}": READ,
    "POST /plans": READ,
    "GET /runs": READ,
    "POST /runs": SUBMIT,
    "GET /runs/{run_id}": READ,
    "PATCH /runs/{run_id}": OPERATE,
    "DELETE /runs/{run_id}": OPERATE,
    "POST /runs/{run_id}/cancel": OPERATE,
    "POST /runs/{run_id}/pause": OPERATE,
    "POST /runs/{run_id}/resume": OPERATE,
    "POST /runs/{run_id}/retry": OPERATE,
    "GET /runs/{run_id}/attempts": READ,
    "GET /runs/{run_id}/logs": READ,
    "GET /runs/{run_id}/metrics": READ,
    "GET /runs/{run_id}/events": READ,
    "GET /runs/{run_id}/samples": READ,
    "GET /runs/{run_id}/first_batch": READ,
    "GET /runs/{run_id}/checkpoints": READ,
    "GET /runs/{run_id}/report": READ,
    "GET /runs/{run_id}/stream": READ,
    "WS /runs/{run_id}/stream": READ,
    "GET /pipelines": READ,
    "GET /pipelines/presets": READ,
    "POST /pipelines": SUBMIT,
    "GET /pipelines/{pipeline_id}": READ,
    "GET /pipelines/{pipeline_id}/report": READ,
    "POST /pipelines/{pipeline_id}/cancel": OPERATE,
    "GET /evaluations": READ,
    "GET /checkpoints": READ,
    "GET /checkpoints/{checkpoint_id}": READ,
    "GET /checkpoints/{checkpoint_id}/download": READ,
    "GET /checkpoints/{checkpoint_id}/lineage": READ,
    "POST /checkpoints/{checkpoint_id}/promote": OPERATE,
    "POST /checkpoints/{checkpoint_id}/export": OPERATE,
    "GET /checkpoints/{checkpoint_id}/exports": READ,
    "GET /checkpoints/{checkpoint_id}/exports/{name}": READ,
    "GET /checkpoints/{checkpoint_id}/exports/{name}/download": READ,
    "GET /files": READ,
    "POST /files": SUBMIT,
    "GET /files/{file_id}": READ | SUBMIT,
    "PATCH /files/{file_id}": SUBMIT,
    "DELETE /files/{file_id}": SUBMIT | OPERATE,
    "GET /v1/models": READ | INFER,
    "GET /v1/models/{name:path}": READ | INFER,
    "POST /v1/chat/completions": INFER,
    "POST /v1/completions": INFER,
    "POST /tokenize": INFER,
    "POST /detokenize": INFER,
    "POST /models/{name:path}/load": OPERATE,
    "POST /models/{name:path}/unload": OPERATE,
    "POST /internal/workers": WORKER,
    "POST /internal/workers/{worker_id}/beat": WORKER,
    "POST /internal/attempts/{attempt_id}/claim": WORKER,
    "POST /internal/attempts/{attempt_id}/gather": WORKER,
    "POST /internal/members/{member_id}/join": WORKER,
    "POST /internal/members/{member_id}/beat": WORKER,
    "PUT /internal/members/{member_id}/log": WORKER,
    "POST /internal/members/{member_id}/finish": WORKER,
    "POST /internal/attempts/{attempt_id}/beat": WORKER,
    "POST /internal/attempts/{attempt_id}/finish": WORKER,
    "POST /internal/attempts/{attempt_id}/events": WORKER,
    "PUT /internal/attempts/{attempt_id}/log": WORKER,
}


class Policy:
    """Answers which scopes a request needs, with the router's own patterns."""

    def __init__(self, table: Mapping[str, frozenset[Scope]] = POLICY) -> None:
        self._rows: list[tuple[str, re.Pattern[str], frozenset[Scope]]] = []
        for row, scopes in table.items():
            method, _, path = row.partition(" ")
            self._rows.append((method, compile_path(path)[0], scopes))

    def needed(self, method: str, path: str) -> list[frozenset[Scope]] | None:
        """What the caller must have one of, for every row that fits; None when no row does."""
        method = "GET" if method == "HEAD" else method
        return [scopes for name, scopes in self._fitting(path) if name == method] or None

    def methods(self, path: str) -> list[str]:
        """What may be sent to the path, in order."""
        return sorted({method for method, _ in self._fitting(path) if method != "WS"})

    def knows(self, path: str) -> bool:
        """Whether the path exists, for some other method perhaps."""
        return next(self._fitting(path), None) is not None

    def _fitting(self, path: str) -> Iterator[tuple[str, frozenset[Scope]]]:
        shorter = path.rstrip("/") or "/"  # the router sends /runs/ on to /runs
        for method, pattern, scopes in self._rows:
            if pattern.match(path) or pattern.match(shorter):
                yield method, scopes
