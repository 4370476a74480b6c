"""What /openapi.json says is what the service does. What a fuzzer found (docs/operations.md) stays here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from server.app import create_app
from server.policy import POLICY
from server.settings import Settings
from tests.server.fake_worker import FakeWorker, post_run
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
    stale = service.client.delete(f"/runs/{run}", headers={"if-match": '"0"'})
    assert stale.status_code == 412 and is_documented(stale, "/runs/{run_id}", "delete")


# ---------------------------------------------------------------- what the schema says is what is checked


def patterns(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("pattern"), str):
            yield part["pattern"]
        for value in part.values():
            yield from patterns(value)
    elif isinstance(part, list):
        for value in part:
            yield from patterns(value)


def test_patterns_are_read_alike_in_every_language(document: dict[str, Any]) -> None:
    found = set(patterns(document["paths"])) | set(patterns(document["components"]))
    assert len(found) > 10
    for pattern in found:
        re.compile(pattern)
        assert pattern.startswith("^") and pattern.endswith("$")
        assert "(?" not in pattern and "\\p" not in pattern and "\\d" not in pattern, pattern


def test_a_query_and_a_header_have_no_null(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                assert {"type": "null"} not in parameter["schema"].get("anyOf", []), (path, parameter["name"])


def test_every_operation_says_which_scopes_open_it(document: dict[str, Any]) -> None:
    needed = {row.replace(":path}", "}"): scopes for row, scopes in POLICY.items()}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            said = {scope for one in operation.get("security", []) for scope in one["key"]}
            assert said == needed[f"{method.upper()} {path}"], (method, path)


NO_TAGS = ("", "x" * 65, "\0", "\t", "\x85", "\xa0", "\u200b", "\u202e", "\u2028", "\ufeff", "\ue000")
HASH = "0" * 64
STEP = {"name": "a", "stage": "tokenizer"}
FILE = {"kind": "text", "name": "a.txt", "size": 9, "sha256": HASH}
WORKER = {"host_id": "h", "host": "h", "name": "h", "slots": 1}
GPU = {"index": 0, "name": "g", "memory_bytes": 1}
BODIES: list[tuple[str, str, dict[str, Any]]] = [
    ("/runs", "RunCreate", {"stage": "tokenizer"}),
    ("/runs", "RunCreate", {"stage": "0"}),
    ("/runs", "RunCreate", {"stage": "tokenizer", "priority": False}),
    ("/runs", "RunCreate", {"stage": "tokenizer", "priority": "1"}),
    ("/runs", "RunCreate", {"stage": "tokenizer", "max_duration_s": "1"}),
    ("/runs", "RunCreate", {"stage": "tokenizer", "max_duration_s": 1}),
    ("/runs", "RunCreate", {"stage": "tokenizer", "checkpoint": "0"}),
    ("/runs", "RunCreate", {"stage": "tokenizer", "tags": ["ä b", "模型", "😀"]}),
    *(("/runs", "RunCreate", {"stage": "tokenizer", "tags": [tag]}) for tag in NO_TAGS),
    ("/plans", "PlanCreate", {"stage": "tokenizer"}),
    ("/plans", "PlanCreate", {"stage": "0"}),
    ("/plans", "PlanCreate", {"stage": "base", "target_vram_gb": True}),
    ("/plans", "PlanCreate", {"stage": "chat_eval", "checkpoint": "step:3680*"}),  # said among its problems
    ("/pipelines", "PipelineCreate", {}),
    ("/pipelines", "PipelineCreate", {"preset": "demo"}),
    ("/pipelines", "PipelineCreate", {"preset": "0"}),
    ("/pipelines", "PipelineCreate", {"preset": None, "steps": []}),
    ("/pipelines", "PipelineCreate", {"preset": "demo", "steps": []}),
    ("/pipelines", "PipelineCreate", {"preset": None, "steps": [STEP]}),
    ("/pipelines", "PipelineCreate", {"preset": "demo", "steps": [STEP]}),
    ("/pipelines", "PipelineCreate", {"steps": [{**STEP, "optional": 1}]}),
    ("/files", "FileCreate", FILE),
    ("/files", "FileCreate", {**FILE, "name": "a.jsonl", "kind": "conversations"}),
    ("/files", "FileCreate", {**FILE, "name": "a.txt", "kind": "conversations"}),
    ("/files", "FileCreate", {**FILE, "name": "A.txt"}),
    ("/files", "FileCreate", {**FILE, "name": "x" * 61 + ".txt"}),
    ("/files", "FileCreate", {**FILE, "size": True}),
    ("/files", "FileCreate", {**FILE, "name": "m.py", "kind": "preset", "size": 64 * 1024 + 1}),
    ("/webhooks", "WebhookCreate", {"url": "https://receiver.invalid/a?b#c"}),
    ("/webhooks", "WebhookCreate", {"url": "HTTP://receiver.invalid:8000"}),
    ("/webhooks", "WebhookCreate", {"url": "00000000"}),
    ("/webhooks", "WebhookCreate", {"url": "https://a:b@receiver.invalid/"}),
    ("/webhooks", "WebhookCreate", {"url": "ftp://receiver.invalid/"}),
    ("/webhooks", "WebhookCreate", {"url": "https://receiver.invalid/", "name": "\0"}),
    ("/internal/workers", "WorkerRegister", {**WORKER, "gpus": [GPU]}),
    ("/internal/workers", "WorkerRegister", {**WORKER, "gpus": [{**GPU, "memory_bytes": False}]}),
    ("/internal/workers", "WorkerRegister", {**WORKER, "gpus": [{**GPU, "memory_bytes": -1}]}),
    ("/internal/workers", "WorkerRegister", {**WORKER, "gpus": [{**GPU, "memory_bytes": 2**63}]}),
    ("/internal/workers", "WorkerRegister", {**WORKER, "slots": True}),
    ("/internal/workers", "WorkerRegister", {**WORKER, "host": "\0"}),
    ("/internal/workers", "WorkerRegister", {**WORKER, "host": "x" * 256}),
    ("/keys", "KeyCreate", {"name": "k", "expires_in_s": "60"}),
    ("/keys", "KeyCreate", {"name": "k", "expires_in_s": 60}),  # from here on keys are asked for
]  # fmt: skip


def test_a_body_is_taken_exactly_when_the_schema_allows_it(
    service: Service, document: dict[str, Any]
) -> None:
    for path, model, body in BODIES:
        schema = {"$ref": f"#/components/schemas/{model}", "components": document["components"]}
        allowed = Draft202012Validator(schema).is_valid(body)
        answer = service.internal.post(path, json=body)
        assert (answer.status_code < 400) == allowed, (path, body, answer.text)
        assert allowed or answer.status_code == (413 if "size" in body and body["kind"] == "preset" else 422)


@sqlite_only
def test_a_change_of_a_run_is_taken_exactly_when_the_schema_allows_it(
    service: Service, document: dict[str, Any]
) -> None:
    path = f"/runs/{post_run(service)['id']}"
    schema = {"$ref": "#/components/schemas/RunPatch", "components": document["components"]}
    for body in ({}, {"notes": "n"}, {"notes": "\0"}, {"name": None}, {"tags": None}, {"priority": None},
                 {"priority": True}, {"tags": ["\u200b"]}, {"tags": []}):  # fmt: skip
        answer = service.client.patch(path, json=body)
        assert answer.status_code == (200 if Draft202012Validator(schema).is_valid(body) else 422), body


@sqlite_only
def test_every_text_of_the_form_of_a_cursor_is_one(service: Service, document: dict[str, Any]) -> None:
    post_run(service), post_run(service)
    real = service.client.get("/runs?limit=1").json()["next_cursor"]
    longest, longer = "9" * 16 + "-" + "Z" * 16, "9" * 17 + "-r"
    texts = (real, "0-0", longest, longer, "", "0", "-", f"{real}\n", "٣-r", "1-r_", "\0")
    for path in ("/runs", "/pipelines", "/checkpoints", "/evaluations", "/alerts", "/files"):
        (said,) = (p for p in document["paths"][path]["get"]["parameters"] if p["name"] == "cursor")
        for text in texts:
            allowed = re.fullmatch(said["schema"]["pattern"].removesuffix("$"), text) is not None
            answer = service.client.get(path, params={"cursor": text})
            assert answer.status_code == (200 if allowed else 422), (path, text)


@sqlite_only
def test_an_etag_of_another_version_is_no_fault_of_form(service: Service, document: dict[str, Any]) -> None:
    run = post_run(service)
    operation = document["paths"]["/runs/{run_id}"]["patch"]
    (said,) = (p for p in operation["parameters"] if p["name"] == "If-Match")
    for given, status in (
        (f'"{run["version"] + 99}"', 412), ('W/"x"', 412), ('"0", "1-gzip"', 412), ("7000", 412), ("*", 200),
        ("null", 422), ('"', 422), ("a b", 422), ('"1" "2"', 422), ("", 422),
    ):  # fmt: skip
        answer = service.client.patch(f"/runs/{run['id']}", json={"notes": "n"}, headers={"if-match": given})
        assert answer.status_code == status, given
        assert (re.search(said["schema"]["pattern"], given) is not None) == (status != 422), given


def test_numbers_of_a_worker_that_no_database_holds_are_refused(service: Service) -> None:
    post_run(service)
    worker = FakeWorker(service)
    claim = worker.claim()
    url, most = f"/internal/attempts/{claim['attempt_id']}/beat", 2**80
    for field in ("exit_code", "signal", "peak_bytes"):
        assert worker.finish(claim, "failed", **{field: most}).status_code == 422, field
    for number in ("Infinity", "NaN", "true", '"1"'):
        text = f'{{"fence": {claim["fence"]}, "seconds": {number}}}'
        answer = service.internal.post(url, content=text, headers={"content-type": "application/json"})
        assert answer.status_code == 422, number
    assert worker.beat(memory_used_bytes=most).status_code == 422
    assert worker.beat(cpu="0.5").status_code == 422
    assert worker.beat_attempt(claim).status_code == 200
    assert service.client.get("/metrics").status_code == 200


def test_a_part_of_a_file_may_be_no_bytes_as_the_service_takes_it(document: dict[str, Any]) -> None:
    assert document["paths"]["/files/{file_id}"]["patch"]["requestBody"]["required"] is False
