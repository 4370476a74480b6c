"""The dashboard where the service asks for keys, and the page of the API, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nanochat_client.types.keys import USER, KeyCreate
from server.keys import local
from server.settings import Settings
from tests.services import Service

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: `make test` installs it")


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    running = Service(settings.model_copy(update={"auth": "on"})).start()
    yield running
    running.stop()


def test_a_key_opens_the_dashboard_its_streams_and_its_buttons(service: Service, visit: Any) -> None:
    key = local.create(service.settings, KeyCreate(name="ada", scopes=list(USER)))
    page = visit().open("/")
    page.get_by_label("Key").fill("nck_wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").get_by_text("no key of this service").wait_for()
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()
    assert "nanochat_session" not in page.evaluate("document.cookie"), "no script reads the session"
    page.reload()
    page.get_by_role("button", name="Train the demo").click()
    page.wait_for_url("**/ui/pipelines/*")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Key").wait_for()
    page.reload()
    page.get_by_label("Key").wait_for()


def test_the_api_page_works_without_a_network_and_under_its_policy(service: Service, visit: Any) -> None:
    visitor = visit()
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.page.goto("/docs")
    visitor.page.get_by_text("/runs/{run_id}/cancel").first.wait_for()
    assert [url for url in asked if not url.startswith((service.base_url, "data:", "blob:"))] == []
    assert visitor.faults == []
