"""The dashboard for people who read Chinese or use a screen reader; axe finds nothing serious on any page."""

from __future__ import annotations

from typing import Any

import pytest

from tests.services import Service
from tests.web.conftest import DESKTOP, PHONE
from tests.web.test_logic import WEB
from tests.web.test_pages import expect

AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
SERIOUS = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations.filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => node.html).join(" ")}`);
}"""


@pytest.mark.skipif(not AXE.is_file(), reason="needs web/node_modules: make web")
@pytest.mark.parametrize(
    ("size", "theme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["light", "phone dark"]
)
def test_axe_finds_nothing_serious(
    service: Service, seeded: dict[str, Any], visit: Any, size: tuple[int, int], theme: str
) -> None:
    live = seeded["live"].run_id
    paths = ["/", "/runs", "/runs/new?config=stable_26gb", f"/runs/{live}", f"/runs/{seeded['failed']}"]
    paths += [f"/compare?runs={live}", f"/pipelines/{seeded['done']}", "/chat", "/system", "/files"]
    paths.append("/pipelines/new")
    visitor = visit(size, theme)
    found = {}
    for path in paths:
        page = visitor.open(path)
        page.get_by_text("Loading…").first.wait_for(state="detached")
        page.locator("main h1, main form, main section").first.wait_for(state="attached")
        page.evaluate(AXE.read_text())
        if wrong := page.evaluate(SERIOUS):
            found[path] = wrong
    assert found == {}


def test_the_language_is_the_readers_and_stays(service: Service, visit: Any) -> None:
    page = visit().open("/runs")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("heading", name="运行")).to_be_visible()
    page.reload()
    expect(page.get_by_role("link", name="新建运行")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "zh"
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()


def test_a_service_that_is_away_is_said_on_every_page(service: Service, visit: Any) -> None:
    visitor = visit()
    sockets: list[Any] = []

    def pass_on(route: Any) -> None:
        if sockets:
            route.close(code=1012)
            return
        route.connect_to_server()
        sockets.append(route)

    visitor.page.route_web_socket("**/system/stream", pass_on)
    page = visitor.open("/runs")
    page.locator("h1").wait_for()
    sockets[0].close(code=1012, reason="restart")
    expect(page.get_by_role("status").filter(has_text="does not answer")).to_be_visible()
