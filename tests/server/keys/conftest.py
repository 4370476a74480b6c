"""A service that asks for keys, and clients with some."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from nanochat_client.types.keys import KeyCreate, Scope
from server.keys import local
from server.settings import Settings
from tests.services import Service


@pytest.fixture
def guarded(settings: Settings) -> Iterator[Service]:
    """The running server with NANOCHAT_AUTH=on; `client` has no key."""
    running = Service(settings.model_copy(update={"auth": "on"})).start()
    yield running
    running.stop()


@pytest.fixture
def key_for(settings: Settings) -> Callable[..., str]:
    """Makes a key with these scopes, straight in the database."""

    def make(*scopes: Scope, expires_in_s: int | None = None) -> str:
        body = KeyCreate(name="of-a-test", scopes=list(scopes), expires_in_s=expires_in_s)
        return local.create(settings, body)

    return make


@pytest.fixture
def caller(guarded: Service, key_for: Callable[..., str]) -> Iterator[Callable[..., httpx.Client]]:
    """An HTTP client whose key has these scopes."""
    made: list[httpx.Client] = []

    def make(*scopes: Scope) -> httpx.Client:
        headers = {"authorization": f"Bearer {key_for(*scopes)}"}
        made.append(httpx.Client(base_url=guarded.base_url, timeout=30, headers=headers))
        return made[-1]

    yield make
    for client in made:
        client.close()
