"""The page of scripts/chat_web.py in a real browser, against a real engine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nanochat.chat_pages import NAME, chat_page
from tests.services import eventually
from tests.web.conftest import DESKTOP, PHONE, Visitor

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: `make test` installs it")
ENDLESS = 65_536


def say(page: Any, text: str) -> None:
    page.get_by_label("Your message").fill(text)
    page.keyboard.press("Enter")


@pytest.mark.parametrize(("size", "theme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_a_conversation_goes_on_and_outgrows_the_context(browser: Any, size: Any, theme: str) -> None:
    with chat_page(128, 4, 8, "--max_tokens=20", "--temperature=0") as served:
        visitor = Visitor(browser, served.url, size, theme)
        page = visitor.page
        page.goto("/")
        page.get_by_text(NAME).wait_for()
        for turn in range(1, 5):
            say(page, f"<b>Tell</b> me about classes, part {turn}.")
            page.locator(".assistant:not(.waiting)").nth(turn - 1).wait_for()
            assert page.locator(".assistant").nth(turn - 1).text_content()
        assert page.locator(".user").first.text_content() == "<b>Tell</b> me about classes, part 1."
        assert page.locator(".turn *").count() == 0  # text stays text
        assert page.get_by_text("no longer fit").count() >= 1
        assert page.get_by_text("Cut off").count() == 4
        assert visitor.too_wide() == 0
        # a refusal for length is part of going on, and the browser tells it
        assert all("400" in fault for fault in visitor.faults)
        page.get_by_role("button", name="New chat").click()
        assert page.locator(".turn").count() == 0 and page.get_by_text("Say something").is_visible()
        visitor.context.close()


def test_stop_and_leaving_both_end_the_generation(browser: Any) -> None:
    with chat_page(ENDLESS, 4, 8, "--max_tokens=60000") as served:
        visitor = Visitor(browser, served.url, DESKTOP, "light")
        page = visitor.page
        page.goto("/")
        say(page, "Talk for ever.")
        eventually(lambda: len(page.locator(".assistant").text_content()) > 20)
        assert served.thread.requests == 1
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
        eventually(lambda: served.thread.requests == 0 and not served.engine.busy)
        said = page.locator(".assistant").text_content()
        assert len(said) > 20

        say(page, "Go on.")
        eventually(lambda: len(page.locator(".assistant").nth(1).text_content()) > 20)
        assert served.thread.requests == 1
        visitor.context.close()
        eventually(lambda: served.thread.requests == 0 and not served.engine.busy)
        assert visitor.faults == []
