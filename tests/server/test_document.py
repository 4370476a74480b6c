"""What /openapi.json says is what the service does. What a fuzzer found (docs/operations.md) stays here."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from server.app import create_app
from server.settings import Settings
from tests.server.fake_worker import post_run
from tests.services import Service

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def refs(part: Any) -> set[str]:
    """Every schema that `part` refers to."""
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(refs(value) for value in part.values()))
    return set().union(*(refs(value) for value in part)) if isinstance(part, list) else set()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert refs(document) <= known
    assert not [name for name in known if "ValidationError" in name]


def test_errors_are_described_as_they_are(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            kind = "application/json" if path.startswith("/v1/") else "application/problem+json"
            assert list(operation["responses"]["default"]["content"]) == [kind], (method, path)
            assert "422" not in operation["responses"] or not path.startswith("/v1/")


def test_bodies_that_are_parsed_by_hand_are_described(document: dict[str, Any]) -> None:
    for path, name in (("/v1/chat/completions", "ChatRequest"), ("/tokenize", "TokenizeRequest")):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": f"#/components/schemas/{name}"}
    assert set(document["components"]["schemas"]["ChatRequest"]["required"]) == {"model", "messages"}


def test_the_document_is_the_same_when_it_is_asked_for_twice() -> None:
    app = create_app(Settings())
    assert app.openapi() == app.openapi() == create_app(Settings()).openapi()


@sqlite_only
def test_a_wrong_method_is_told_all_right_ones(service: Service, document: dict[str, Any]) -> None:
    told = 0
    for template, operations in document["paths"].items():
        if template.endswith(":path}") or "{name}" in template:
            continue  # a name may hold slashes, so that these paths are others as well
        path, right = re.sub(r"\{[^}]*\}", "x", template), {name.upper() for name in operations}
        wrong = next(method for method in ("TRACE", "PUT", "DELETE") if method not in right)
        answer = service.client.request(wrong, path)
        if answer.status_code == 405:
            told += 1
            assert set(answer.headers["allow"].split(", ")) == right, template
    assert told > 40


@sqlite_only
def test_answers_have_a_type_that_is_documented(service: Service, document: dict[str, Any]) -> None:
    run = post_run(service)["id"]

    def is_documented(answer: httpx.Response, template: str, method: str = "get") -> bool:
        responses = document["paths"][template][method]["responses"]
        described = responses.get(str(answer.status_code), responses["default"])
        return answer.headers["content-type"].partition(";")[0] in described["content"]

    for path, template in (
        (f"/runs/{run}/logs?format=text", "/runs/{run_id}/logs"),
        (f"/runs/{run}/logs?limit=0", "/runs/{run_id}/logs"),
        (f"/runs/{run}/report?format=text", "/runs/{run_id}/report"),
        ("/pipelines/x/report", "/pipelines/{pipeline_id}/report"),
        ("/runs?cursor=0", "/runs"),
        ("/runs/x", "/runs/{run_id}"),
        ("/v1/models/x", "/v1/models/{name}"),
    ):
        assert is_documented(service.client.get(path), template), path
    for path, body in (
        ("/v1/completions", {}),
        ("/tokenize", {}),
        ("/runs", {}),
        ("/webhooks", {"url": "0" * 8}),
    ):
        assert is_documented(service.client.post(path, json=body), path, "post"), path
    stale = service.client.delete(f"/runs/{run}", headers={"if-match": "null"})
    assert stale.status_code == 412 and is_documented(stale, "/runs/{run_id}", "delete")
