"""A browser, and a service with something to see. The database does not matter here: SQLite."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from server.settings import Settings
from tests import services
from tests.services import WORKER_TOKEN, Service
from tests.web import seed

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: `make test` installs it")

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
DESKTOP, TABLET, PHONE, NARROW = (1280, 800), (820, 1180), (390, 844), (360, 740)
LOADING = re.compile("Loading…|加载中…|Planning…|正在规划…")


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    return services.copy_sqlite(sqlite_template, tmp_path)


@pytest.fixture
def settings(tmp_path: Path, database_url: str, redis_url: str) -> Settings:
    """Long leases: the seeded trainers do not beat."""
    return Settings(
        base_dir=tmp_path,
        database_url=database_url,
        redis_url=redis_url,
        worker_token=SecretStr(WORKER_TOKEN),
    )


@pytest.fixture
def host(service: Service) -> seed.Host:
    host = seed.Host(service, slots=4)
    host.measure()
    return host


@pytest.fixture
def seeded(service: Service, host: seed.Host) -> dict[str, Any]:
    return seed.everything(service, host)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


class Visitor:
    """One browser window; whatever goes wrong in it is collected in `faults`."""

    def __init__(
        self, browser: Any, base_url: str, size: tuple[int, int], theme: str, locale: str = "en-GB"
    ) -> None:
        viewport = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(
            viewport=viewport, color_scheme=theme, base_url=base_url, reduced_motion="reduce", locale=locale
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.faults: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def open(self, path: str) -> Any:
        self.page.goto(f"/ui{path}")
        return self.page

    def loaded(self) -> None:
        """Wait until the page has what it is about."""
        self.page.get_by_text(LOADING).first.wait_for(state="detached")
        self.page.locator("main h1, main form, main section").first.wait_for(state="attached")

    def keep(self, directory: Path, name: str) -> None:
        """A picture of the whole page, for people to look at."""
        directory.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=directory / f"{name}.png", full_page=True, animations="disabled")

    def too_wide(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.fixture
def visit(browser: Any, service: Service, tmp_path: Path) -> Iterator[Any]:
    """`visit(size, theme, locale)` opens a window; what it showed last stays in the test's directory."""
    visitors: list[Visitor] = []

    def open_window(size: tuple[int, int] = DESKTOP, theme: str = "light", locale: str = "en-GB") -> Visitor:
        visitors.append(Visitor(browser, service.base_url, size, theme, locale))
        return visitors[-1]

    yield open_window
    for number, visitor in enumerate(visitors):
        visitor.page.screenshot(path=tmp_path / f"window-{number}.png")
        visitor.context.close()
