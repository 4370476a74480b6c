"""What a key has opened ends with the key: nothing more is sent on streams that stand open."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from nanochat_client.types.keys import Scope
from tests.server.fake_worker import FakeWorker
from tests.server.telemetry.test_ingest import Shipping, begin
from tests.services import Service

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def shipping(guarded: Service, key_for: Callable[..., str]) -> Shipping:
    guarded.client.headers["authorization"] = f"Bearer {key_for(Scope.ADMIN)}"
    return begin(guarded, FakeWorker(guarded))


def revoke(shipping: Shipping, key: str) -> None:
    prefix = key.split("_")[1]
    [found] = [item for item in shipping.get("/keys")["items"] if item["id"] == prefix]
    shipping.service.client.delete(f"/keys/{found['id']}").raise_for_status()


@pytest.mark.parametrize("how", ["header", "first frame"])
def test_a_websocket_whose_key_is_revoked_is_closed_before_its_next_frame(
    shipping: Shipping, key_for: Callable[..., str], how: str
) -> None:
    key = key_for(Scope.READ)
    headers = {"authorization": f"Bearer {key}"} if how == "header" else {}
    address = f"{shipping.service.ws_url}/runs/{shipping.run_id}/stream?channels=log"
    with connect(address, additional_headers=headers) as socket:
        if not headers:
            socket.send(json.dumps({"op": "hello", "token": key}))
        assert json.loads(socket.recv(10))["op"] == "welcome"
        shipping.log(b"before\n", 0)
        assert json.loads(socket.recv(10))["items"][0]["text"] == "before\n"
        revoke(shipping, key)
        shipping.log(b"after\n", 7)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401


def test_events_end_with_the_key(shipping: Shipping, key_for: Callable[..., str]) -> None:
    key, seen = key_for(Scope.READ), b""
    http = httpx.Client(base_url=shipping.service.base_url, timeout=20)
    shipping.log(b"before\n", 0)
    headers = {"authorization": f"Bearer {key}"}
    with http.stream("GET", f"/runs/{shipping.run_id}/stream?channels=log", headers=headers) as answer:
        for piece in answer.iter_raw():
            seen += piece
            if b"before" in piece:
                revoke(shipping, key)
                shipping.log(b"after\n", 7)
    http.close()
    assert b"before" in seen and b"after" not in seen
    assert shipping.get(f"/runs/{shipping.run_id}")["state"] == "starting", "the stream ended, not the run"


def test_who_revokes_the_own_key_is_told_so(shipping: Shipping) -> None:
    own = str(shipping.service.client.headers["authorization"]).removeprefix("Bearer ")
    revoke(shipping, own)
    assert shipping.service.client.get("/runs").status_code == 401
