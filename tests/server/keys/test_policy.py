"""Default deny: every route of the app is looked at, and none is open by mistake."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from nanochat_client.types.keys import USER, Scope
from server.app import create_app
from server.policy import ANYBODY, POLICY, WORKER
from server.settings import Settings
from tests.services import Service

sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
#: frozen: a route that needs no key is a decision, not an accident
ANONYMOUS = {
    "GET /", "GET /ui", "GET /ui/{path:path}", "GET /docs", "GET /docs/{path:path}", "GET /openapi.json",
    "GET /healthz", "GET /readyz", "POST /login", "POST /logout",
}  # fmt: skip


def rows(routes: list[BaseRoute]) -> Iterator[str]:
    """`METHOD /path` of everything that the app answers."""
    for route in routes:
        if isinstance(route, Mount):
            yield f"GET {route.path}/{{path:path}}"
        elif isinstance(route, WebSocketRoute):
            yield f"WS {route.path}"
        elif isinstance(route, APIRoute | Route):
            yield from (f"{method} {route.path}" for method in route.methods or () if method != "HEAD")
        elif (router := getattr(route, "original_router", None)) is not None:
            assert not route.include_context.prefix, "this test reads the paths of routers as they are"
            yield from rows(router.routes)
        else:
            raise AssertionError(f"a kind of route that this test does not know: {route!r}")


def everything() -> set[str]:
    return set(rows(create_app(Settings()).routes))


def test_every_route_has_a_line_in_the_policy() -> None:
    found = everything()
    assert len(found) > 50
    assert found - set(POLICY) == set(), "add these to server/policy.py"


def test_what_needs_no_key_is_this_list() -> None:
    assert {row for row, scopes in POLICY.items() if scopes == ANYBODY} == ANONYMOUS


def test_what_changes_something_asks_for_more_than_read() -> None:
    reading = {"POST /plans"}
    for row, scopes in POLICY.items():
        method = row.split()[0]
        if method not in ("GET", "WS") and scopes != ANYBODY and row not in reading:
            assert Scope.READ not in scopes, row


def test_everything_below_internal_is_for_workers_and_nothing_else_is() -> None:
    for row, scopes in POLICY.items():
        assert (Scope.WORKER in scopes) == (" /internal" in row), row


@sqlite
def test_without_a_key_every_route_is_refused(guarded: Service) -> None:
    for row in sorted(everything() - ANONYMOUS):
        method, _, template = row.partition(" ")
        path = re.sub(r"\{[^}]*\}", "x", template)
        if method == "WS":
            assert closed_with(f"{guarded.ws_url}{path}", "Bearer nck_0_" + 40 * "a") == 4401, row
            continue
        answer = guarded.client.request(method, path)
        assert answer.status_code == 401, row
        assert answer.headers["www-authenticate"] == "Bearer" and "nanochat keys create" in answer.text


@sqlite
def test_without_a_key_a_path_that_does_not_exist_says_no_more_than_one_that_does(guarded: Service) -> None:
    for path in (
        "/nothing",
        "/runs/../keys",
        "/internal",
        "/%2e%2e/keys",
        "/runs/",
        "/RUNS",
        "/v1",
        "/runs%2f",
    ):
        assert guarded.client.get(path).status_code == 401, path


@sqlite
def test_a_key_does_what_its_scopes_say_and_no_more(caller: Callable[..., httpx.Client]) -> None:
    """Every route that is no WebSocket, with a key of every single scope."""
    for scope in Scope:
        client = caller(scope)
        may = set(USER) | {Scope.ADMIN} if scope == Scope.ADMIN else {scope}
        for row, scopes in POLICY.items():
            method, _, template = row.partition(" ")
            if method == "WS" or scopes == ANYBODY:
                continue
            path = re.sub(r"\{[^}]*\}", "x", template)
            status = client.request(method, path, json={}).status_code
            assert (status != 403) == bool(may & scopes), (scope, row, status)
            assert status != 401, (scope, row)
    assert caller(Scope.READ).get("/system").json()["auth"] is True


def test_what_one_scope_alone_may_do_is_this_list() -> None:
    """Frozen: a route that moves to a lesser scope is a decision, not an accident."""
    mutating = {
        scope: {
            row for row, scopes in POLICY.items() if scope in scopes and row.split()[0] not in ("GET", "WS")
        }
        for scope in (Scope.READ, Scope.SUBMIT, Scope.INFER)
    }
    assert mutating == {
        Scope.READ: {"POST /plans"},
        Scope.SUBMIT: {
            "POST /runs", "POST /pipelines", "POST /files", "PATCH /files/{file_id}",
            "DELETE /files/{file_id}",
        },
        Scope.INFER: {
            "POST /v1/chat/completions", "POST /v1/completions", "POST /tokenize", "POST /detokenize",
        },
    }  # fmt: skip
    for_admins = {row for row, scopes in POLICY.items() if scopes == {Scope.ADMIN}}
    assert for_admins == {row for row in POLICY if re.match(r"\w+ /(keys|webhooks)", row)}


@sqlite
def test_anonymous_routes_answer_where_keys_are_asked_for(guarded: Service) -> None:
    for path in ("/healthz", "/readyz", "/", "/ui/", "/docs", "/docs/start.js", "/openapi.json"):
        assert guarded.client.get(path, follow_redirects=True).status_code == 200, path


@sqlite
def test_workers_calls_are_refused_where_the_service_is_open(service: Service) -> None:
    assert service.client.get("/runs").status_code == 200
    assert service.client.get("/system").json()["auth"] is False
    for row in (row for row, scopes in POLICY.items() if scopes == WORKER):
        method, _, template = row.partition(" ")
        answer = service.client.request(method, re.sub(r"\{[^}]*\}", "x", template))
        assert answer.status_code == 401, row


@sqlite
def test_a_websocket_takes_its_key_in_a_header_or_in_the_first_frame(
    guarded: Service, key_for: Callable[..., str]
) -> None:
    url, key = f"{guarded.ws_url}/system/stream", key_for(Scope.READ)
    with connect(url, additional_headers={"authorization": f"Bearer {key}"}) as socket:
        assert '"welcome"' in str(socket.recv(timeout=10))
    with connect(url) as socket:
        socket.send(f'{{"op":"hello","token":"{key}"}}')
        assert '"welcome"' in str(socket.recv(timeout=10))
    for frame in ('{"op":"hello","token":"nck_x_y"}', '{"op":"ping"}', "{", "[" * 100_000):
        assert closed_with(url, frame=frame) == 4401, frame[:20]
    assert closed_with(url, f"Bearer {key_for(Scope.INFER)}") == 4403


def closed_with(url: str, authorization: str | None = None, frame: str | None = None) -> int:
    """The code that the service closes the socket with."""
    headers = {"authorization": authorization} if authorization else None
    try:
        with connect(url, additional_headers=headers) as socket:
            if frame is not None:
                socket.send(frame)
            said = socket.recv(timeout=10)
    except ConnectionClosed as closed:
        assert closed.rcvd is not None
        return closed.rcvd.code
    except InvalidStatus as refused:
        return 4000 + refused.response.status_code
    raise AssertionError(f"the socket was let in and said {said!r}")
