"""Every page of the dashboard in a real browser, against a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services import Service, eventually
from tests.web import seed
from tests.web.conftest import DESKTOP, NARROW, PHONE, TABLET

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: `make test` installs it")


playwright.expect.set_options(timeout=20_000)  # a loaded machine is slow, not wrong


#: of the middle half of a chart: how many columns of pixels hold some of its saturated line
INKED_COLUMNS = """canvas => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let columns = 0;
  for (let x = width >> 2; x < (width * 3) >> 2; x += 1)
    for (let y = 0; y < height; y += 1) {
      const [r, g, b, a] = data.subarray((y * width + x) * 4);
      if (a > 128 && Math.max(r, g, b) - Math.min(r, g, b) > 80) { columns += 1; break; }
    }
  return columns;
}"""


def expect(locator: Any) -> Any:
    return playwright.expect(locator)


@pytest.mark.parametrize(
    ("size", "theme", "locale"),
    [
        (DESKTOP, "light", "en-GB"),
        (PHONE, "dark", "en-GB"),
        (NARROW, "light", "zh-CN"),
        (TABLET, "dark", "zh-CN"),
    ],
    ids=["desktop", "phone", "360 zh", "tablet zh"],
)
def test_every_page_opens_without_a_fault_and_fits_the_window(
    service: Service, seeded: dict[str, Any], visit: Any, tmp_path: Path,
    size: tuple[int, int], theme: str, locale: str,
) -> None:  # fmt: skip
    """And leaves a picture of itself in the test's directory."""
    made = service.client.post("/pipelines", json={"preset": "full-demo"}).json()["id"]
    runs = service.client.get("/runs").json()["items"]
    visitor = visit(size, theme, locale)
    pages = {
        "home": "/",
        "runs": "/runs",
        "new-run": "/runs/new?config=stable_26gb",
        "new-rl": "/runs/new?stage=rl",
        "new-pipeline": "/pipelines/new?preset=full-demo",
        "compare": f"/compare?runs={','.join(run['id'] for run in runs if run['step'])}",
        "system": "/system",
        "files": "/files",
        "chat": "/chat",
        "pipeline-done": f"/pipelines/{seeded['done']}",
        "pipeline-live": f"/pipelines/{seeded['running']}",
        "pipeline-graph": f"/pipelines/{made}",
        "nowhere": "/nowhere",
    }
    pages |= {f"run-{run['stage']}-{run['state']}": f"/runs/{run['id']}" for run in runs}
    for name, path in pages.items():
        visitor.open(path)
        visitor.loaded()
        visitor.keep(tmp_path / "pages", name)
        assert visitor.too_wide() <= 0, f"{path} is {visitor.too_wide()} px too wide"
        assert visitor.faults == [], path


def test_every_room_is_in_sight_on_a_small_phone(service: Service, visit: Any) -> None:
    for locale in ("en-GB", "zh-CN"):
        page = visit(NARROW, "light", locale).open("/")
        rooms = page.get_by_role("navigation")
        expect(rooms.get_by_role("link")).to_have_count(5)
        assert rooms.evaluate("nav => nav.scrollWidth - nav.clientWidth") <= 0, locale


def test_an_empty_service_explains_itself_and_one_button_trains_the_demo(
    service: Service, host: seed.Host, visit: Any
) -> None:
    visitor = visit()
    page = visitor.open("/")
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.get_by_role("button", name="Train the demo").click()
    page.wait_for_url(re.compile("/ui/pipelines/"))
    steps = page.get_by_role("list", name="Steps of the pipeline")
    expect(steps.get_by_role("listitem")).to_have_count(4)
    expect(steps).to_contain_text("waiting")
    made = service.client.get("/pipelines").json()["items"]
    assert [run["stage"] for run in made[0]["runs"]] == ["tokenizer", "base", "sft", "chat_eval"]
    assert visitor.faults == []


def test_a_finished_demo_offers_the_chat_and_shows_both_scores(seeded: dict[str, Any], visit: Any) -> None:
    page = visit().open(f"/pipelines/{seeded['done']}")
    link = page.get_by_role("link", name="Chat with it")
    assert "model=demo-sft" in link.get_attribute("href")
    identity = page.get_by_role("listitem").filter(has_text="identity").first
    expect(identity).to_contain_text("2 %")
    expect(identity).to_contain_text("97 %")


def test_a_pipeline_is_a_graph_of_what_starts_from_what(
    service: Service, host: seed.Host, visit: Any
) -> None:
    made = service.client.post("/pipelines", json={"preset": "full-demo"}).json()
    page = visit().open(f"/pipelines/{made['id']}")
    steps = page.get_by_role("list", name="Steps of the pipeline").get_by_role("listitem")
    expect(steps).to_have_count(len(made["runs"]))
    expect(page.locator("main svg path")).to_have_count(len(made["runs"]) - 1)
    found = [step.bounding_box() for step in steps.all()]
    boxes = {run["id"]: box for run, box in zip(made["runs"], found, strict=True)}
    for run in made["runs"]:
        if parent := boxes.get(run["parent"]):
            assert boxes[run["id"]]["x"] >= parent["x"] + parent["width"], run["name"]
    corners = {(round(box["x"]), round(box["y"])) for box in boxes.values()}
    assert len(corners) == len(boxes) and len({y for _, y in corners}) == 2, "a chain, and evaluations below"
    core = steps.filter(has_text="CORE")
    expect(core).to_contain_text("starts from base")
    phone = visit(PHONE).open(f"/pipelines/{made['id']}")
    steps = phone.get_by_role("list", name="Steps of the pipeline").get_by_role("listitem")
    expect(steps).to_have_count(len(made["runs"]))
    expect(phone.locator("main svg path")).to_have_count(0)


def test_a_shipped_pipeline_is_changed_drawn_mended_and_started(
    service: Service, host: seed.Host, visit: Any
) -> None:
    visitor = visit()
    page = visitor.open("/runs")
    page.get_by_role("link", name="New pipeline").click()
    page.get_by_label("Begin with").select_option("full-demo")
    graph = page.get_by_role("list", name="Steps of the pipeline")
    steps = graph.get_by_role("listitem")
    expect(steps).to_have_count(9)
    expect(page.locator("main form svg path")).to_have_count(8)
    text = page.get_by_label("Steps as JSON")
    shipped = text.input_value()
    text.fill("[{")
    expect(page.get_by_role("alert")).to_contain_text("This is no list of steps")
    expect(page.get_by_role("button", name="Start the pipeline")).to_be_disabled()
    expect(steps).to_have_count(9)  # the last picture
    page.get_by_role("button", name="As shipped").click()
    expect(text).to_have_value(shipped)
    mine = [
        {"name": "tok", "stage": "tokenizer", "config": "demo_tokenizer"},
        {"name": "base", "stage": "base", "config": "demo_base", "overrides": {"dept": 2}},
        {"name": "tuned", "stage": "sft", "config": "demo_sfd", "parent": "base"},
    ]
    text.fill(json.dumps(mine))
    expect(steps).to_have_count(3)
    page.get_by_label("Name").fill("my own")
    page.get_by_role("button", name="Start the pipeline").click()
    expect(steps.nth(1).get_by_role("alert")).to_contain_text("dept")
    expect(steps.nth(2).get_by_role("alert")).to_contain_text("demo_sfd")
    steps.nth(2).get_by_role("button", name="Use demo_sft").click()
    page.get_by_role("button", name="Start the pipeline").click()
    steps.nth(1).get_by_role("button", name="Use depth").click()
    mine[1]["overrides"], mine[2]["config"] = {"depth": 2}, "demo_sft"
    assert json.loads(text.input_value()) == mine
    visitor.faults.clear()
    page.get_by_role("button", name="Start the pipeline").click()
    page.wait_for_url(re.compile("/ui/pipelines/p"))
    (made,) = service.client.get("/pipelines").json()["items"]
    assert made["name"] == "my own" and page.url.endswith(made["id"])
    assert [run["name"] for run in made["runs"]] == ["my own-tok", "my own-base", "my own-tuned"]
    assert made["runs"][1]["config"]["depth"] == 2
    assert visitor.faults == []


def test_a_log_line_appears_when_it_is_appended_and_is_only_text(seeded: dict[str, Any], visit: Any) -> None:
    live = seeded["live"]
    visitor = visit()
    page = visitor.open(f"/runs/{live.run_id}")
    log = page.get_by_role("log", name="Log")
    expect(log).to_contain_text("step 00179/300")
    live.log("\x1b[31mlook\x1b[0m <img src=x onerror=alert(1)> \x1b]0;title\x07here\n")
    expect(log).to_contain_text("look <img src=x onerror=alert(1)> here")
    assert log.locator("img").count() == 0
    assert "ansi-bad" in log.get_by_text("look", exact=True).get_attribute("class")
    assert visitor.faults == []


def test_step_loss_and_state_follow_the_trainer(seeded: dict[str, Any], visit: Any) -> None:
    live = seeded["live"]
    page = visit().open(f"/runs/{live.run_id}")
    expect(page.get_by_text("179 / 300")).to_be_visible()
    live.steps(180, 190, 300)
    expect(page.get_by_text("189 / 300")).to_be_visible()
    eventually(lambda: page.locator("canvas").first.evaluate(INKED_COLUMNS) > 100)
    live.finish(exit_code=0)
    expect(page.get_by_role("main").get_by_text("succeeded").first).to_be_visible()


def test_a_lost_connection_is_said_and_nothing_is_missed_after_it(seeded: dict[str, Any], visit: Any) -> None:
    live = seeded["live"]
    visitor = visit()
    sockets: list[Any] = []
    asked: list[str] = []

    def pass_on(route: Any) -> None:
        asked.append(route.url)
        route.connect_to_server()
        sockets.append(route)

    visitor.page.route_web_socket(re.compile(f"/runs/{live.run_id}/stream"), pass_on)
    page = visitor.open(f"/runs/{live.run_id}")
    log = page.get_by_role("log", name="Log")
    live.log("before the cut\n")
    expect(log).to_contain_text("before the cut")
    sockets[0].close(code=1012, reason="restart")
    live.log("during the cut\n")
    expect(log).to_contain_text("during the cut")
    assert log.inner_text().count("before the cut") == 1
    eventually(lambda: len(asked) >= 2)
    after = int(httpx.URL(asked[-1]).params["after_log"])
    assert after > 0, "it came back from the beginning"


def test_a_run_that_failed_says_why_with_the_last_lines(seeded: dict[str, Any], visit: Any) -> None:
    page = visit().open(f"/runs/{seeded['failed']}")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Data is missing or broken")
    expect(alert).to_contain_text("exit code 1")
    expect(alert).to_contain_text("DataError: no documents in /data/empty")
    page.get_by_role("button", name="Retry").click()
    page.wait_for_url(lambda url: seeded["failed"] not in url)
    expect(page.get_by_text("Retry of")).to_be_visible()


def test_a_blocked_run_says_what_it_waits_for(seeded: dict[str, Any], visit: Any) -> None:
    page = visit().open("/runs")
    expect(page.get_by_role("row").filter(has_text="two GPUs wanted")).to_contain_text(
        "debug_cpu would run here"
    )


def test_a_bad_value_is_explained_at_its_field_and_the_nearest_one_is_a_click_away(
    service: Service, host: seed.Host, visit: Any
) -> None:
    page = visit().open("/runs")
    page.get_by_role("link", name="New run").click()
    page.get_by_label("Preset").select_option("debug_cpu")
    page.get_by_label("depth", exact=True).fill("-3")
    expect(page.get_by_role("alert")).to_contain_text("depth")
    page.get_by_role("button", name="Use 1").click()
    expect(page.get_by_label("depth", exact=True)).to_have_value("1")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_text("Memory of each GPU")).to_be_visible()
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url(re.compile("/ui/runs/r"))
    made = service.client.get("/runs").json()["items"]
    assert [run["config"]["depth"] for run in made] == [1]


def test_a_copy_of_a_run_differs_in_what_was_changed(service: Service, host: seed.Host, visit: Any) -> None:
    body = {"stage": "base", "config": "debug_cpu", "overrides": {"depth": 3}}
    first = service.client.post("/runs", json=body).json()
    page = visit().open(f"/runs/{first['id']}")
    page.get_by_role("link", name="Duplicate with changes").click()
    expect(page.get_by_label("depth", exact=True)).to_have_value("3")
    page.get_by_role("searchbox", name="Find a field").fill("seed")
    page.get_by_label("seed", exact=True).fill("7")
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url(lambda url: "/ui/runs/r" in url and first["id"] not in url)
    second = service.client.get("/runs").json()["items"][0]
    assert second["preset"] == "debug_cpu"
    assert {key for key, value in second["config"].items() if value != first["config"][key]} == {"seed"}


def test_a_batch_that_does_not_fit_is_made_smaller_with_one_click(host: seed.Host, visit: Any) -> None:
    page = visit().open("/runs/new?config=stable_26gb")
    expect(page.get_by_text("It does not fit.")).to_be_visible()  # made for 32 GB, and here are 24
    page.get_by_role("button", name=re.compile("^Use device_batch_size")).click()
    expect(page.get_by_text("It fits.")).to_be_visible()


def test_stages_after_base_are_planned_for_the_model_they_start_from(
    seeded: dict[str, Any], visit: Any
) -> None:
    visitor = visit()
    page = visitor.open("/runs/new?stage=rl")
    expect(page.get_by_text("Answers at once")).to_be_visible()
    expect(page.get_by_text(re.compile("^keys and values |^activations ")).first).to_be_visible()
    page.get_by_role("combobox").first.select_option("tokenizer")
    expect(page.get_by_text("its memory grows with the text and is not planned")).to_be_visible()
    assert visitor.faults == []


def test_pausing_is_offered_while_it_runs_and_resuming_afterwards(
    service: Service, host: seed.Host, visit: Any
) -> None:
    run_id = service.client.post("/runs", json={"stage": "tokenizer"}).json()["id"]
    page = visit().open(f"/runs/{run_id}")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_gauges_follow_the_host(service: Service, host: seed.Host, visit: Any) -> None:
    page = visit().open("/system")
    cpu = page.get_by_role("progressbar", name="CPU")
    expect(cpu).to_have_attribute("aria-valuenow", "62")
    host.measure(cpu=0.25)
    expect(cpu).to_have_attribute("aria-valuenow", "25")
    expect(page.get_by_text("403 W · 71 °C")).to_be_visible()


def test_what_needs_a_look_is_said_until_it_is_over(
    service: Service, host: seed.Host, visit: Any, tmp_path: Path
) -> None:
    visitor = visit()
    page = visitor.open("/system")
    (card,) = seed.STATS["gpus"]
    host.measure(gpus=[card | {"temperature_c": 96.0}])
    alerts = page.get_by_role("status", name="Needs a look")
    expect(alerts).to_contain_text("Hot GPU")
    expect(alerts).to_contain_text("96")
    visitor.keep(tmp_path / "pages", "alert")
    host.measure()
    expect(alerts).to_have_count(0)


def test_a_chosen_theme_stays(service: Service, visit: Any) -> None:
    page = visit(theme="light").open("/")
    page.get_by_role("button", name="Use the dark theme").click()
    page.reload()
    expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_searching_the_log_finds_and_walks_the_matches(seeded: dict[str, Any], visit: Any) -> None:
    page = visit().open(f"/runs/{seeded['live'].run_id}")
    expect(page.get_by_role("log")).to_contain_text("step 00179/300")
    box = page.get_by_role("searchbox", name="Search the log")
    box.fill("step 0001")
    expect(page.get_by_text("10 of 10")).to_be_visible()
    box.press("Enter")
    expect(page.get_by_text("1 of 10")).to_be_visible()
    expect(page.get_by_role("log")).to_contain_text("step 00010/300")


def test_the_page_needs_no_mouse(service: Service, host: seed.Host, visit: Any) -> None:
    page = visit().open("/")
    expect(page.get_by_role("button", name="Train the demo")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Train the demo":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is not visible"
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/ui/pipelines/"))


def test_nothing_is_loaded_from_elsewhere(service: Service, visit: Any) -> None:
    visitor = visit()
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    visitor.open("/").get_by_role("heading").first.wait_for()
    assert asked
    assert {httpx.URL(url).host for url in asked} == {"127.0.0.1"}
