"""The charts and the log of a run that goes on while one looks at it."""

from __future__ import annotations

import re
from typing import Any

import httpx

from tests.services import Service, eventually
from tests.web import large, seed
from tests.web.heap import reachable_bytes
from tests.web.test_pages import expect

STEPS = 6000


def long_run(service: Service, host: seed.Host) -> seed.Trainer:
    """A live run with more steps than a chart is sent at first."""
    body = {"stage": "tokenizer", "name": "long"}
    trainer = seed.Trainer(host, service.client.post("/runs", json=body).json()["id"])
    trainer.events({"kind": "phase", "phase": "train", "step": 0, "steps": 2 * STEPS})
    for first in range(0, STEPS, 1000):
        trainer.steps(first, first + 1000, 2 * STEPS)
    return trainer


def drag(page: Any, start: float, end: float) -> None:
    """Over the first chart, from one share of its width to another."""
    box = page.locator(".u-over").first.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=4)
    page.mouse.up()


def test_a_zoom_asks_for_detail_stays_while_data_streams_in_and_goes(
    service: Service, host: seed.Host, visit: Any
) -> None:
    trainer = long_run(service, host)
    visitor = visit()
    asked: list[httpx.URL] = []
    visitor.page.on("request", lambda request: asked.append(httpx.URL(request.url)))
    page = visitor.open(f"/runs/{trainer.run_id}")
    expect(page.get_by_text("5,999 / 12,000")).to_be_visible()
    drag(page, 0.4, 0.6)
    reset = page.get_by_role("button", name="Show all")
    expect(reset).to_be_visible()
    parts = eventually(lambda: [url.params for url in asked if "first" in url.params])
    assert abs(int(parts[0]["first"]) - 0.4 * STEPS) < 0.02 * STEPS
    assert abs(int(parts[0]["last"]) - 0.6 * STEPS) < 0.02 * STEPS
    trainer.steps(STEPS, STEPS + 20, 2 * STEPS)
    expect(page.get_by_text("6,019 / 12,000")).to_be_visible()
    expect(reset).to_be_visible()
    page.get_by_label("X axis").select_option("tokens")  # the same part on another axis
    page.locator(".u-over").first.hover()
    expect(page.get_by_text("M tokens").first).to_be_visible()
    reset.click()
    expect(reset).to_have_count(0)
    assert visitor.faults == []


def test_a_page_that_streams_takes_no_more_memory_with_every_step(
    service: Service, host: seed.Host, visit: Any
) -> None:
    """Fewer points than are kept of a series: none is halved meanwhile."""
    trainer = seed.Trainer(host, service.client.post("/runs", json={"stage": "tokenizer"}).json()["id"])
    trainer.events({"kind": "phase", "phase": "train", "step": 0, "steps": STEPS})
    visitor = visit()
    page = visitor.open(f"/runs/{trainer.run_id}")

    def stream(first: int, last: int) -> tuple[int, int]:
        for step in range(first, last, 50):
            trainer.steps(step, step + 50, STEPS)
            expect(page.get_by_text(f"{step + 49:,} / {STEPS:,}")).to_be_visible()
        return reachable_bytes(page)

    before, _ = stream(0, 1200)
    after, _ = stream(1200, 3600)
    assert after - before < 250_000, "1.1 MB where points and lines are kept as they come"
    assert visitor.faults == []


#: how often the page writes each moment: a drawing of the events' card writes that of every event
COUNT_MOMENTS = """(() => {
  const plain = Date.prototype.toLocaleString;
  window.moments = {};
  Date.prototype.toLocaleString = function (...how) {
    window.moments[+this] = (window.moments[+this] ?? 0) + 1;
    return plain.apply(this, how);
  };
})()"""


def test_a_step_draws_only_what_it_changes(service: Service, host: seed.Host, visit: Any) -> None:
    trainer = seed.Trainer(host, service.client.post("/runs", json={"stage": "tokenizer"}).json()["id"])
    trainer.events({"kind": "phase", "phase": "train", "step": 0, "steps": STEPS})
    visitor = visit()
    visitor.page.add_init_script(COUNT_MOMENTS)
    page = visitor.open(f"/runs/{trainer.run_id}")
    expect(page.get_by_role("region", name="Events")).to_contain_text("train")
    (event,) = service.client.get(f"/runs/{trainer.run_id}/events").json()["items"]
    moment = str(int(1000 * event["t"]))  # as the page cuts it
    before, steps = page.evaluate("window.moments")[moment], 40
    for step in range(1, 1 + steps):
        trainer.steps(step, step + 1, STEPS)
        expect(page.get_by_text(f"{step:,} / {STEPS:,}")).to_be_visible()
    written = page.evaluate("window.moments")[moment] - before
    assert written < steps / 2, "the events were drawn again with steps that they do not show"
    assert visitor.faults == []


def test_what_else_changes_is_seen_while_steps_come_quickly(
    service: Service, host: seed.Host, visit: Any
) -> None:
    """No frame tells of it."""
    trainer = seed.Trainer(host, service.client.post("/runs", json={"stage": "tokenizer"}).json()["id"])
    trainer.steps(0, 1, STEPS)
    visitor = visit()
    page = visitor.open(f"/runs/{trainer.run_id}")
    expect(page.locator("figcaption").first).to_be_visible()
    trainer.events({"kind": "phase", "phase": "train", "step": 1, "steps": STEPS})
    new = page.get_by_text(re.compile(rf"^[\d,]+ / {STEPS:,}$"))
    for step in range(1, 400):
        trainer.steps(step, step + 1, STEPS)
        if new.count():
            break
        page.wait_for_timeout(30)
    expect(new).to_be_visible(timeout=1)
    assert visitor.faults == []


def test_the_crosshair_is_shared(service: Service, host: seed.Host, visit: Any) -> None:
    trainer = long_run(service, host)
    page = visit().open(f"/runs/{trainer.run_id}")
    page.locator(".u-over").first.hover()
    readings = page.locator("figcaption").get_by_text(re.compile(r"^step \d"))
    eventually(lambda: readings.count() >= 4)
    steps = [int(text.removeprefix("step ")) for text in readings.all_inner_texts()]
    assert max(steps) - min(steps) < STEPS / 100, "every chart reads the point it has that is nearest"


#: puts the box at a share of its height, as the scroll bar does
SCROLL_TO = "(box, share) => { box.scrollTop = share * (box.scrollHeight - box.clientHeight); }"


def shown(log: Any) -> list[int]:
    """Numbers of the lines that are in the page."""
    return [int(number) for number in re.findall(r"step (\d{7}) \|", log.inner_text())]


def test_a_million_points_and_lines_are_looked_at_in_parts(
    service: Service, host: seed.Host, visit: Any
) -> None:
    trainer = large.million(service, host)
    visitor = visit()
    asked: list[tuple[httpx.URL, int]] = []
    visitor.page.on(
        "response",
        lambda answer: asked.append((httpx.URL(answer.url), int(answer.headers.get("content-length", 0)))),
    )
    page = visitor.open(f"/runs/{trainer.run_id}")
    log = page.get_by_role("log", name="Log")
    last = f"step {large.LINES - 1:07d}"
    expect(log).to_contain_text(last)
    assert not [url for url, _ in asked if url.path.endswith("/logs") and "after" in url.params], "not needed"

    with page.expect_response(re.compile("first=")) as answer:
        drag(page, 0.4, 0.6)
    fine = httpx.URL(answer.value.url).params
    assert abs(int(fine["last"]) - int(fine["first"]) - 0.2 * large.POINTS) < 0.02 * large.POINTS
    with page.expect_response(re.compile("first=")) as answer:
        drag(page, 0.5, 0.52)
    closer = httpx.URL(answer.value.url).params
    assert int(closer["last"]) - int(closer["first"]) < 0.01 * large.POINTS
    charts = [(url, size) for url, size in asked if url.path.endswith("/metrics")]
    assert charts and all(int(url.params["max_points"]) <= 2000 and size < 200_000 for url, size in charts)

    log.evaluate(SCROLL_TO, 0.5)
    middle = eventually(lambda: [n for n in shown(log) if abs(n - large.LINES / 2) < 0.02 * large.LINES])
    assert middle == list(range(middle[0], middle[0] + len(middle)))
    log.evaluate(SCROLL_TO, 0)
    expect(log).to_contain_text("step 0000000 |")
    log.evaluate(SCROLL_TO, 1)
    expect(log).to_contain_text(last)
    assert log.locator("div > div > div").count() < 120, "only what is in sight is in the page"

    large.say(trainer, large.POINTS)
    expect(log).to_contain_text(f"step {large.LINES:07d}")

    asked.clear()
    page.get_by_role("searchbox", name="Search the log").fill(large.NEEDLE)
    expect(page.get_by_text("1 of 1", exact=True)).to_be_visible()
    expect(log).to_contain_text(f"step {large.NEEDLE_AT:07d} | warning: {large.NEEDLE} \N{EM DASH} look")
    found = shown(log)
    assert found == list(range(found[0], found[0] + len(found))), "no line is missing around it"
    large.say(trainer, large.POINTS + 1)  # must not move who reads
    expect(page.get_by_text(f"{large.POINTS + 1:,} / {2 * large.POINTS:,}")).to_be_visible()
    assert shown(log) == found
    read = [url for url, _ in asked if url.path.endswith("/logs") and "q" not in url.params]
    assert len(read) == 2, "what is before and after what was found, and nothing else"
    page.get_by_role("searchbox", name="Search the log").fill("39,000 tok/s")
    expect(page.get_by_text("1 of 1000+")).to_be_visible()
    page.route("**/logs?*q=*", lambda route: route.abort())
    page.get_by_role("searchbox", name="Search the log").fill("nowhere to be found")
    expect(page.get_by_text("the service did not answer")).to_be_visible()
    page.unroute("**/logs?*q=*")
    visitor.faults.clear()  # Chromium says so too
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("no match")).to_be_visible()

    page.get_by_label("Follow").check()
    expect(log).to_contain_text(f"step {large.LINES + 1:07d}")
    large.say(trainer, large.POINTS + 2)
    expect(log).to_contain_text(f"step {large.LINES + 2:07d}")
    pieces = [size for url, size in asked if url.path.endswith("/logs")]
    assert sum(pieces) < 16_000_000, "of 54 MB"
    assert visitor.faults == []


def test_what_the_trainer_said_is_listed_and_its_warnings_alone(
    service: Service, seeded: dict[str, Any], visit: Any
) -> None:
    live = seeded["live"]
    page = visit().open(f"/runs/{live.run_id}")
    events = page.get_by_role("region", name="Events")
    expect(events.get_by_role("listitem").first).to_contain_text("Checkpoint")
    expect(events).to_contain_text(f"Warning: {seed.WARNING}")
    expect(events).to_contain_text("Phase: trains")
    page.get_by_label("Only warnings (1)").check()
    expect(events.get_by_role("listitem")).to_have_count(1)
    live.events({"kind": "warning", "step": 179, "message": "<i>a bad</i> step was skipped"})
    live.finish(exit_code=0)
    expect(events.get_by_role("listitem").first).to_contain_text("<i>a bad</i> step was skipped")
    assert events.locator("i").count() == 0


def test_a_checkpoint_shows_what_was_measured_of_it(
    service: Service, seeded: dict[str, Any], visit: Any
) -> None:
    runs = service.client.get(f"/pipelines/{seeded['done']}").json()["runs"]
    sft, judge = (next(run for run in runs if run["stage"] == stage) for stage in ("sft", "chat_eval"))
    page = visit().open(f"/runs/{sft['id']}")
    page.get_by_role("link", name=re.compile("^identity 97 % 91–100$")).click()
    page.wait_for_url(f"**/runs/{judge['id']}")


def test_of_many_samples_and_checkpoints_the_newest_are_at_hand(
    service: Service, host: seed.Host, visit: Any
) -> None:
    body = {"stage": "tokenizer", "name": "talkative"}
    trainer = seed.Trainer(host, service.client.post("/runs", json=body).json()["id"])
    told = [{"kind": "sample", "step": step, "prompt": "Once", "text": f"Once {step}"} for step in range(450)]
    trainer.events(*told)
    for step in range(12):
        trainer.checkpoint(step, "tokenizer", model=False)
    page = visit().open(f"/runs/{trainer.run_id}")
    expect(page.get_by_text("Once 449")).to_be_visible()
    card = page.locator("section").filter(has=page.get_by_role("heading", name="Checkpoints"))
    expect(card.get_by_text("step 11", exact=True)).to_be_visible()
    expect(card.get_by_text("step 1", exact=True)).to_have_count(0)
    page.get_by_role("button", name="All 12 checkpoints").click()
    expect(card.get_by_text("step 1", exact=True)).to_be_visible()


def test_the_first_batch_shows_what_the_loss_is_taken_of(seeded: dict[str, Any], visit: Any) -> None:
    visitor = visit()
    page = visitor.open(f"/runs/{seeded['live'].run_id}")
    batch = page.get_by_role("region", name="First batch, Row 1")
    expect(batch).to_contain_text("Who are you?")
    counted = batch.get_by_role("mark")
    expect(counted).to_have_count(1)
    expect(counted).to_contain_text("I am↵\n<b>nano</b><|assistant_end|>")
    assert batch.locator("b").count() == 0, "text of a batch is only text"
    expect(batch.get_by_text("<|bos|>")).to_have_attribute("title", "token 14")
    page.get_by_role("combobox", name="Row").select_option(label="2")
    batch = page.get_by_role("region", name="First batch, Row 2")
    expect(batch).to_contain_text("… and 1,537 more tokens")
    batch.focus()
    page.keyboard.press("End")
    assert visitor.too_wide() <= 0 and visitor.faults == []
