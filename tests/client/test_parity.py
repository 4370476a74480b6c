"""The SDK has a call for every operation of the API with every parameter; both clients have the same."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from nanochat_client import AsyncClient, Client, types
from nanochat_client.aio import AsyncCheckpoints
from nanochat_client.bound import _Method
from nanochat_client.calls import Calls, CheckpointCalls, FileCalls, RunCalls
from nanochat_client.client import Checkpoints
from nanochat_client.handles import RunVerbs
from nanochat_client.operations import artefacts, models
from server.app import create_app
from server.settings import Settings

#: operations that no method of the SDK makes, and why
LEFT_OUT = {
    "GET /healthz": "asked by what supervises the service",
    "GET /readyz": "asked by what supervises the service",
    "GET /metrics": "read by Prometheus",
    "POST /login": "a browser's session; programs send a key",
    "POST /logout": "a browser's session; programs send a key",
    "GET /session": "a browser's session; programs send a key",
    "POST /v1/completions": "client.openai().completions",
    "GET /runs/{run_id}/stream": "client.follow, over the WebSocket of the same path",
}
#: parameters that no method has, and why
PARAMETERS_LEFT_OUT = {
    "format": "the text is in the answer: Report.markdown, LogPage",
    "Idempotency-Key": "made for every call that creates",
    "If-Match": "made of `version`",
    "Upload-Offset": "made of `offset`",
    "range": "made of what is here already",
    "if-range": "made of what is here already",
}
#: methods that are not in the table, because they do more than send one operation
BY_HAND = [
    lambda: artefacts.download("x"),
    lambda: artefacts.download_export("x", "x"),
    lambda: models.chat_stream([], "x", {}),
]
SAMPLES: dict[Any, Any] = {
    str: "x", int: 1, float: 1.0, bool: True, bytes: b"x", types.RunPatch: types.RunPatch(name="n"),
}  # fmt: skip


@pytest.fixture(scope="module")
def api() -> dict[str, dict[str, Any]]:
    """Operations of the OpenAPI by method and path, without those for workers."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in create_app(Settings()).openapi()["paths"].items()
        for method, operation in methods.items()
        if not path.startswith("/internal/")
    }


def sample(hint: Any) -> Any:
    """Some value of a type, one that is sent."""
    if get_origin(hint) is Literal:
        return get_args(hint)[0]
    if (arguments := get_args(hint)) and type(None) in arguments:
        return sample(arguments[0])
    if get_origin(hint) is Sequence:
        return ["x"] if arguments == (str,) else []
    if get_origin(hint) is dict:
        return {}
    if hint in SAMPLES:
        return SAMPLES[hint]
    return "x"  # str among others


def made() -> list[Any]:
    """Every operation of the table, with every argument given."""
    found = [build() for build in BY_HAND]
    for name, method in (
        item for table in (Calls, RunCalls, CheckpointCalls, FileCalls) for item in vars(table).items()
    ):
        if not isinstance(method, _Method):
            continue
        hints = get_type_hints(method.operation)
        given = {
            parameter.name: sample(hints[parameter.name])
            for parameter in inspect.signature(method.operation).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        if name == "tokenize":
            given["text"] = "x"
        found.append(method.operation(**given))
    return found


def matching(api: dict[str, Any], operation: Any) -> str | None:
    for key in api:
        method, path = key.split(" ", 1)
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))
        if method == operation.method and re.fullmatch(pattern, operation.path):
            if "{" in path and f"{method} {operation.path}" in api:
                continue
            return key
    return None


def test_every_operation_of_the_api_has_a_call_or_a_reason(api: dict[str, dict[str, Any]]) -> None:
    called = {matching(api, operation) for operation in made()}
    assert None not in called, "the SDK calls something that the API does not have"
    assert not called & set(LEFT_OUT), "left out, and called nevertheless"
    assert set(api) - called == set(LEFT_OUT)


def test_every_parameter_of_the_api_can_be_given(api: dict[str, dict[str, Any]]) -> None:
    missing = {}
    for operation in made():
        key = matching(api, operation)
        assert key is not None
        wanted = {p["name"] for p in api[key].get("parameters", []) if p["in"] != "path"}
        if lacking := wanted - set(operation.params) - set(PARAMETERS_LEFT_OUT):
            missing[key] = lacking
        assert set(operation.params) <= wanted, f"{key} has no {set(operation.params) - wanted}"
    assert missing == {}


def test_both_kinds_of_checkpoints_have_the_same_methods_with_the_same_arguments() -> None:
    def arguments(kind: type) -> list[str]:
        return list(inspect.signature(kind.export).parameters)  # type: ignore[attr-defined]

    assert arguments(Checkpoints) == arguments(AsyncCheckpoints)


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(getattr(kind, name)).parameters)
            for name in dir(kind)
            if not name.startswith("_") and callable(getattr(kind, name))
        }

    assert methods(Client) == methods(AsyncClient)
    table = {name for name in vars(Calls) if isinstance(vars(Calls)[name], _Method)}
    assert set(methods(Client)) - table == {"chat_stream", "close", "download", "follow", "openai", "send"}


@pytest.mark.parametrize("table", [Calls, FileCalls, RunCalls, CheckpointCalls, RunVerbs])
def test_every_call_says_what_it_does(table: type) -> None:
    silent = [
        name
        for name, method in vars(table).items()
        if isinstance(method, _Method) and not (method.operation.__doc__ or "").strip()
    ]
    assert silent == []
