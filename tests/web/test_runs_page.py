"""The table of runs: ten thousand of them, by keyboard, and over each other."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import pytest

from tests.services import Service
from tests.web.test_pages import expect

MANY = 10_000
#: texts of the table that do not fit their cells, but for messages, which have a line of their own
CUT = """() => {
  const cut = (box) => box.scrollWidth > box.clientWidth;
  const cells = [...document.querySelectorAll("main th, main td")];
  const plain = cells.filter((cell) => cell.offsetParent && !cell.querySelector("p, a"));
  const words = document.querySelectorAll("main td .truncate:not(p):not(a)");
  return [...plain, ...words].filter(cut).map((cell) => cell.textContent);
}"""


def moment(second: int) -> str:
    return f"2026-01-01 {second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.000000"


def many_runs(service: Service, template: str) -> None:
    """Copies of a run that ended, one second apart."""
    with sqlite3.connect(service.settings.base_dir / "nanochat.db") as database:
        database.row_factory = sqlite3.Row
        row = dict(database.execute("select * from runs where id = ?", [template]).fetchone())
        names = ",".join(row)
        marks = ",".join(f":{name}" for name in row)
        rows = [
            row | {"id": f"r{number:010d}", "name": f"copy {number}", "pipeline_id": None, "config": "{}",
                   "summary": json.dumps({"train/loss": float(number)}),
                   "created_at": moment(number)}
            for number in range(MANY)
        ]  # fmt: skip
        database.executemany(f"insert into runs ({names}) values ({marks})", rows)


def test_ten_thousand_runs_are_searched_sorted_and_scrolled(
    service: Service, seeded: dict[str, Any], visit: Any
) -> None:
    many_runs(service, seeded["failed"])
    visitor = visit()
    page = visitor.open("/runs")
    expect(page.get_by_role("link", name="copy 9999")).to_be_visible()
    page.get_by_role("button", name="Loss").click()
    expect(page.get_by_text(f"{MANY + 10:,} runs")).to_be_visible()
    expect(page.get_by_role("link", name="copy 0", exact=True)).to_be_visible()
    page.get_by_role("button", name="Loss").click()
    expect(page.get_by_role("link", name="copy 9999")).to_be_visible()
    assert page.get_by_role("row").count() < 60, "only what is in sight is in the page"
    page.get_by_role("searchbox", name="Search runs").fill("copy 4321")
    expect(page.get_by_text("1 runs")).to_be_visible()
    assert visitor.faults == []


@pytest.mark.parametrize("width", [800, 820, 900, 1024, 1280, 1600])
def test_no_column_is_cut_at_any_width(seeded: dict[str, Any], visit: Any, width: int) -> None:
    visitor = visit((width, 800))
    page = visitor.open("/runs")
    page.get_by_role("link", name="two GPUs wanted").wait_for()
    cut = page.evaluate(CUT)
    assert cut == []
    assert visitor.too_wide() <= 0
    names = page.get_by_role("columnheader", name="Name").bounding_box()
    assert names["width"] >= 150, "names are what people look for"


def test_the_keyboard_walks_opens_chooses_and_searches(seeded: dict[str, Any], visit: Any) -> None:
    page = visit().open("/runs")
    page.get_by_role("link", name="two GPUs wanted").wait_for()
    for key in "jjjj":
        page.keyboard.press(key)
    page.keyboard.press("x")
    page.keyboard.press("k")
    page.keyboard.press("x")
    expect(page.get_by_role("button", name="Compare 2")).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search runs")).to_be_focused()
    page.keyboard.type("broken")
    expect(page.get_by_text("1 runs")).to_be_visible()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"/ui/runs/{seeded['failed']}"))


def test_a_tag_is_given_and_finds_its_runs(service: Service, seeded: dict[str, Any], visit: Any) -> None:
    page = visit().open(f"/runs/{seeded['failed']}")
    page.get_by_role("button", name="Edit tags").click()
    page.get_by_label("Tags, comma-separated").fill("night, broken")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("link", name="night").click()
    expect(page.get_by_text("1 runs")).to_be_visible()
    assert service.client.get(f"/runs/{seeded['failed']}").json()["tags"] == ["night", "broken"]


def test_notes_are_text_that_stays_and_nobody_overwrites_anothers_unread(
    service: Service, seeded: dict[str, Any], visit: Any
) -> None:
    live = seeded["live"]
    url, visitor = f"/runs/{live.run_id}", visit()
    page = visitor.open(url)
    page.get_by_role("button", name="Add notes").click()
    field = page.get_by_role("textbox", name="Notes")
    field.fill("a warm-up of 40 steps\n  <b>not</b> more")
    before = service.client.get(url).json()["version"]
    service.client.patch(url, json={"tags": ["night"]}).raise_for_status()
    page.get_by_role("button", name="Save").click()  # the version is another one, the notes are not
    shown = page.get_by_role("region", name="Notes")
    expect(shown).to_have_text("a warm-up of 40 steps\n  <b>not</b> more", use_inner_text=True)
    assert shown.locator("b").count() == 0
    run = service.client.get(url).json()
    assert (run["notes"], run["tags"]) == ("a warm-up of 40 steps\n  <b>not</b> more", ["night"])
    assert run["version"] >= before + 2
    page.get_by_role("button", name="Edit notes").click()
    service.client.patch(url, json={"notes": "theirs"}).raise_for_status()
    field.fill("mine")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("changed meanwhile")
    expect(shown).to_have_text("theirs")
    expect(field).to_have_value("mine")
    assert service.client.get(url).json()["notes"] == "theirs"
    page.get_by_role("button", name="Save").click()
    expect(shown).to_have_text("mine")
    assert service.client.get(url).json()["notes"] == "mine"
    assert all("412" in fault for fault in visitor.faults)


def test_runs_are_laid_over_each_other_with_their_differences(
    service: Service, seeded: dict[str, Any], visit: Any
) -> None:
    runs = [run for run in service.client.get("/runs").json()["items"] if run["step"]]
    base, sft = (next(run for run in runs if run["stage"] == stage) for stage in ("base", "sft"))
    page = visit().open(f"/compare?runs={base['id']},{sft['id']}")
    loss = page.get_by_role("figure", name=re.compile("^Loss"))
    expect(loss).to_have_attribute("aria-label", re.compile("demo-base.*demo-sft"))
    expect(page.get_by_role("row").filter(has_text="num_iterations")).to_be_visible()
    expect(
        page.get_by_role("region", name="Results").get_by_role("row").filter(has_text="Loss")
    ).to_be_visible()
