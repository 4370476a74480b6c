"""The dashboard where the service asks for keys, and the page of the API, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from nanochat_client.types.keys import USER, KeyCreate, Scope
from server.keys import local
from server.settings import Settings
from tests.server.fake_worker import post_run
from tests.services import Service
from tests.web.test_pages import expect

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


def signed_in(page: Any, settings: Settings, *scopes: Scope) -> None:
    name = "-".join(scopes)
    page.get_by_label("Key").fill(local.create(settings, KeyCreate(name=name, scopes=list(scopes))))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


def test_who_may_only_look_is_offered_nothing_else(service: Service, visit: Any) -> None:
    key = local.create(service.settings, KeyCreate(name="all", scopes=list(USER)))
    service.client.headers["authorization"] = f"Bearer {key}"
    made = service.client.post("/pipelines", json={"preset": "demo"}).json()
    run = post_run(service)["id"]
    visitor = visit()
    page = visitor.open("/")
    signed_in(page, service.settings, Scope.READ)
    visitor.faults.clear()  # the browser tells of every 401 on the way
    navigation = page.get_by_role("navigation")
    expect(navigation.get_by_role("link")).to_have_text(["Home", "Runs", "Files", "System"])
    expect(page.get_by_role("link", name="demo").first).to_be_visible()
    offered: tuple[str, ...] = ("Train the demo", "Cancel", "New run", "New pipeline", "Start", "Add notes")
    offered += ("Pause", "Duplicate", "Edit tags", "Delete", "Chat")
    for path in ("/", "/runs", f"/runs/{run}", "/pipelines/new", f"/pipelines/{made['id']}"):
        page = visitor.open(path)
        page.get_by_role("button", name="Sign out").wait_for()
        visitor.loaded()
        words = page.locator("main button, main a, nav a").all_inner_texts()
        assert [word for word in words if word.startswith(offered)] == [], path
    page.keyboard.press("n")
    assert "/new" not in page.url
    assert visitor.faults == []


def test_who_may_only_talk_to_models_gets_the_chat(service: Service, visit: Any) -> None:
    page = visit().open("/runs")
    signed_in(page, service.settings, Scope.INFER)
    expect(page.get_by_role("navigation").get_by_role("link")).to_have_text(["Chat"])
    expect(page.get_by_text("There is no model to chat with yet.")).to_be_visible()
    expect(page.get_by_role("link", name="Go to the start page")).to_have_count(0)


def test_the_api_page_works_without_a_network_and_under_its_policy(service: Service, visit: Any) -> None:
    visitor = visit()
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.page.goto("/docs")
    visitor.page.get_by_text("/runs/{run_id}/cancel").first.wait_for()
    assert [url for url in asked if not url.startswith((service.base_url, "data:", "blob:"))] == []
    assert visitor.faults == []
