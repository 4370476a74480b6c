"""The dashboard's chat in a real browser: what a model wrote is shown and never obeyed.

And: stop, edit and ask again, what is kept, two models, how sure they were.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.inference.conftest import MODEL_ID, directory, insert, make_model, random_net, stub
from tests.services import Service, eventually
from tests.web.conftest import DESKTOP, PHONE
from tests.web.hostile import ELSEWHERE, HOSTILE
from tests.web.test_pages import expect

#: what an answer may consist of, as the page promises: tags, and attributes of each
SHOWN = """(allowed) => [...document.querySelectorAll("[data-testid=answer] .written *")].flatMap((node) => {
  const { localName: tag, namespaceURI: space } = node;
  const known = allowed.tags.includes(tag) && space === "http://www.w3.org/1999/xhtml";
  const foreign = [...node.attributes].filter(({ name }) => !(allowed.attributes[tag] ?? []).includes(name));
  const safe = ["https:", "http:", "mailto:"].includes(node.protocol);
  const leads = tag !== "a" || !node.hasAttribute("href") || safe;
  return known && foreign.length === 0 && leads ? [] : [node.cloneNode(false).outerHTML];
})"""
KEPT = "localStorage.getItem('nanochat.conversations')"
ENGINE_STARTS_MS = 90_000
TAGS = "p br hr strong em del s code pre blockquote ul ol li a h1 h2 h3 h4 h5 h6 table thead tbody tr th td"
CELL = ["align"]
ALLOWED = {
    "tags": TAGS.split(),
    "attributes": {"a": ["href", "target", "rel"], "ol": ["start"], "td": CELL, "th": CELL},
}


@pytest.fixture
def stubbed(service: Service) -> Service:
    stub(service)
    return service


def ask(page: Any, text: str) -> None:
    page.get_by_role("textbox", name="Message").fill(text)
    page.get_by_role("button", name="Send").click()


def answered(page: Any, count: int = 1) -> Any:
    """The last of so many answers, once all are whole."""
    answers = page.get_by_test_id("answer")
    expect(answers).to_have_count(count)
    expect(page.locator("[data-testid=answer][aria-busy=true]")).to_have_count(0, timeout=ENGINE_STARTS_MS)
    return answers.last


def bodies(page: Any) -> list[dict[str, Any]]:
    """What the page will have asked the models, in order."""
    found: list[dict[str, Any]] = []

    def listen(request: Any) -> None:
        if request.url.endswith("/v1/chat/completions"):
            found.append(request.post_data_json)

    page.on("request", listen)
    return found


def test_what_a_model_writes_is_shown_and_never_obeyed(stubbed: Service, visit: Any) -> None:
    """Every hostile text arrives a few characters at a time, and is drawn at each."""
    visitor = visit()
    page = visitor.open("/chat")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(httpx.URL(request.url).host))
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    page.on("popup", lambda popup: asked.append(popup.url))
    for count, (name, text) in enumerate(HOSTILE.items(), 1):
        ask(page, f"say {text}")
        answered(page, count)
        assert page.evaluate(SHOWN, ALLOWED) == [], name
    for anchor in page.locator("[data-testid=answer] a:not([target])").all():
        anchor.dispatch_event("click")
    assert page.evaluate("window.owned") is None
    assert set(asked) <= {"127.0.0.1"}, asked
    assert page.url.endswith("/ui/chat")
    # the sanitiser reads <base> in a document of its own, which has the page's policy
    assert [fault for fault in visitor.faults if "Setting the document's base URI" not in fault] == []
    question = page.get_by_text(HOSTILE["svg"]).first
    assert question.locator("svg").count() == 0, "what a person wrote is text too"
    code = page.locator("[data-testid=answer] pre", has_text="<script>window.owned = 1</script>")
    expect(code.first).to_contain_text("<img src=x onerror=window.owned=1>")


def test_what_a_model_writes_is_set_and_its_links_open_elsewhere(stubbed: Service, visit: Any) -> None:
    page = visit().open("/chat")
    text = (
        "# Title\n\n3. *three*\n4. **four**\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n\n```py\nx = 1 < 2\n```\n\n"
    )
    ask(page, f"say {text}See [the site](https://{ELSEWHERE}/a?b=1) or https://{ELSEWHERE}.")
    answer = answered(page)
    expect(answer.get_by_role("heading", name="Title")).to_be_visible()
    assert answer.locator("ol").get_attribute("start") == "3"
    expect(answer.get_by_role("cell")).to_have_count(2)
    expect(answer.locator("pre code")).to_have_text("x = 1 < 2\n")
    link = answer.get_by_role("link", name="the site")
    assert link.get_attribute("href") == f"https://{ELSEWHERE}/a?b=1"
    assert link.get_attribute("target") == "_blank" and "noopener" in link.get_attribute("rel")
    expect(answer.get_by_role("link")).to_have_count(2)


@pytest.mark.parametrize(("size", "theme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_a_conversation_is_stopped_changed_kept_and_forgotten(
    stubbed: Service, visit: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: Any, theme: str
) -> None:
    monkeypatch.setenv("STUB_STEP_S", "0.05")
    visitor = visit(size, theme)
    page = visitor.open("/chat")
    told = bodies(page)
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("System prompt").fill("Be short.")
    page.get_by_label("Longest answer, tokens").fill("2000")
    page.get_by_label("Seed").fill("7")
    ask(page, "Talk for ever")
    expect(page.get_by_test_id("answer")).to_contain_text("word9")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text(re.compile(r"tokens/s · stopped"))).to_be_visible()
    assert (told[0]["max_tokens"], told[0]["seed"], told[0]["stream"]) == (2000, 7, True)

    ask(page, "say second answer")
    expect(answered(page, 2)).to_contain_text("second answer")
    said = [(message["role"], message["content"][:14]) for message in told[1]["messages"]]
    assert said[:3] == [("system", "Be short."), ("user", "Talk for ever"), ("assistant", "word1 word2 wo")]

    page.get_by_role("button", name="Edit").first.click()
    page.get_by_label("Edit").fill("say something else")
    page.get_by_role("button", name="Ask again").click()
    expect(answered(page)).to_contain_text("something else")
    assert [message["role"] for message in told[2]["messages"]] == ["system", "user"]
    visitor.keep(tmp_path / "pages", "chat")
    assert visitor.too_wide() <= 0

    eventually(lambda: "something else" in (page.evaluate(KEPT) or ""))
    page.reload()
    page.get_by_role("textbox", name="Message").wait_for()
    if size == PHONE:
        page.get_by_text("Conversations", exact=True).click()
    page.get_by_role("button", name=re.compile("^say something else")).locator("visible=true").click()
    expect(page.get_by_test_id("answer")).to_contain_text("something else")
    forget = page.get_by_role("button", name="Forget say something else").locator("visible=true")
    forget.click()
    expect(page.get_by_test_id("answer")).to_have_count(0)
    expect(forget).to_have_count(0)
    assert visitor.faults == []


def test_an_engine_that_dies_is_said_and_the_next_question_is_answered(stubbed: Service, visit: Any) -> None:
    page = visit().open("/chat")
    ask(page, "die")
    expect(page.get_by_role("alert")).to_be_visible()
    ask(page, "say alive")
    expect(page.get_by_text("alive", exact=True).last).to_be_visible()


def test_two_models_answer_side_by_side_and_show_how_sure_they_were(
    service: Service, visit: Any, tmp_path: Path
) -> None:
    """With real engines: the stub has no probabilities."""
    net = random_net()
    make_model(service.settings, net)
    insert(service.settings, directory(service.settings), number=2, run="other")
    visitor = visit()
    page = visitor.open("/chat")
    told = bodies(page)
    page.get_by_text("Settings", exact=True).click()
    page.get_by_label("Longest answer, tokens").fill("12")
    page.get_by_role("combobox", name="Model", exact=True).select_option(MODEL_ID)
    page.get_by_role("button", name="Two models").click()
    page.get_by_role("combobox", name="Second model").select_option("other:sft:7")
    page.wait_for_url(re.compile("beside=other"))
    ask(page, "Who are you?")
    answered(page, 2)
    assert sorted(body["model"] for body in told) == sorted([MODEL_ID, "other:sft:7"])
    facts = re.compile("12 tokens · .* tokens/s · stopped at the length limit")
    expect(page.get_by_text(facts)).to_have_count(2)
    page.get_by_role("button", name="Probabilities").first.click()
    tokens = page.get_by_role("group", name="Probabilities")
    expect(tokens.locator("span")).to_have_count(12)
    tokens.locator("span").nth(3).hover()
    shares = page.get_by_role("status").filter(has_text="%")
    expect(shares.locator("span").nth(3)).to_be_visible()  # what else was likely: five, or four beside it
    before = shares.inner_text()
    tokens.focus()
    page.keyboard.press("ArrowRight")
    expect(shares).not_to_have_text(before)
    visitor.keep(tmp_path / "pages", "chat-two")
    page.get_by_role("button", name="One model").click()
    expect(page.get_by_role("combobox", name="Second model")).to_have_count(0)
    assert visitor.too_wide() <= 0 and visitor.faults == []
