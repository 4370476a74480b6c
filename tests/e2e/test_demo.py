"""The whole way, as a user walks it: start everything, press the button in a browser, read the answer.

Real server, Valkey, worker, torchrun with two ranks, engine process and Chromium. The pipeline is the
shipped demo with less of everything: its text is this repository's prose, its runs have few steps.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.services import eventually

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: `make test` installs it")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
REPO = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@dataclass
class Up:
    """The running service, started as `make up` starts it."""

    process: subprocess.Popen[bytes]
    url: str
    base: Path

    def processes(self) -> list[psutil.Process]:
        """Every process that works for this base directory."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("NANOCHAT_BASE_DIR") == str(self.base):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    base, port = tmp_path / "base", free_port()
    base.mkdir()
    environ = {
        **{key: value for key, value in os.environ.items() if not key.startswith("NANOCHAT_")},
        "NANOCHAT_BASE_DIR": str(base),
        "NANOCHAT_PORT": str(port),
    }
    log = (tmp_path / "up.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "server.up"], cwd=REPO, env=environ, stdout=log, stderr=subprocess.STDOUT
    )
    service = Up(process, f"http://127.0.0.1:{port}", base)
    try:
        eventually(lambda: process.poll() is not None or ready(service.url), 60)
        assert process.poll() is None, (tmp_path / "up.log").read_text()
        yield service
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        code = process.wait(60)
        log.close()
        left = service.processes()
        for survivor in left:
            survivor.kill()
        print((tmp_path / "up.log").read_text()[-4000:])
        assert left == [], f"Ctrl-C left {left}"
        assert code in (0, 130)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def page() -> Iterator[Any]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=executable, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def smaller_demo(route: Any, corpus: Path) -> None:
    """The button's own request, with less of everything."""
    if route.request.method != "POST":
        route.continue_()
        return
    body = json.loads(route.request.post_data)
    body["overrides"] = {
        "tokenizer": {"data": str(corpus), "vocab_size": 512},
        "base": {
            "data": str(corpus),
            "depth": 2,
            "num_iterations": 10,
            "max_seq_len": 128,
            "device_batch_size": 4,
            "total_batch_size": 1024,
            "eval_every": 10,
            "eval_tokens": 1024,
            "sample_every": 0,
        },
        "sft": {"num_iterations": 20, "max_seq_len": 128},
        "chat_eval": {"max_problems": 4, "max_new_tokens": 16},
    }
    route.continue_(post_data=json.dumps(body))


TRIES = 8  # a model of twenty steps may end an answer before it begins


def said_in_browser(page: Any) -> str:
    """What the model answers in the chat page."""
    page.get_by_role("textbox", name="Message").fill("Who are you?")
    page.get_by_role("button", name="Send").click()
    page.get_by_role("button", name="Send").wait_for(timeout=90_000)  # "Stop" stands there meanwhile
    return str(page.get_by_test_id("answer").last.inner_text()).strip()


def said_over_http(api: httpx.Client, seed: int) -> int:
    """Tokens that the newest model answers with."""
    body = {
        "model": "latest",
        "messages": [{"role": "user", "content": "Who are you?"}],
        "max_tokens": 8,
        "seed": seed,
    }
    reply = api.post("/v1/chat/completions", json=body).json()
    assert reply["choices"][0]["message"]["role"] == "assistant"
    return int(reply["usage"]["completion_tokens"])


def test_the_button_trains_a_model_that_answers(up: Up, page: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "prose"
    corpus.mkdir()
    for index, file in enumerate(sorted(REPO.glob("docs/**/*.md"))):
        for number, paragraph in enumerate(file.read_text().split("\n\n")):
            (corpus / f"{index:03d}_{number:03d}.txt").write_text(paragraph)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.route("**/pipelines", lambda route: smaller_demo(route, corpus))

    page.goto(f"{up.url}/")
    page.get_by_role("button", name="Train the demo").click()
    page.get_by_role("link", name="Chat with it").wait_for(timeout=240_000)
    page.get_by_role("link", name="Chat with it").click()
    assert any(said_in_browser(page) for _ in range(TRIES))

    with httpx.Client(base_url=up.url, timeout=30) as api:
        runs = {run["stage"]: run for run in api.get("/runs").json()["items"]}
        assert {run["state"] for run in runs.values()} == {"succeeded"}
        assert set(runs) == {"tokenizer", "base", "sft", "chat_eval"}
        assert runs["base"]["step"] == runs["base"]["steps"] == 10
        metrics = api.get(f"/runs/{runs['base']['id']}/metrics", params={"keys": "train/loss"}).json()
        assert metrics["series"][0]["x"] == list(range(1, 11))
        log = api.get(f"/runs/{runs['base']['id']}/logs", params={"format": "text"}).text
        assert "2 rank(s)" in log
        scores = {row["name"] for row in api.get("/evaluations").json()["items"]}
        assert {"chat_eval", "chat_eval/before"} <= scores
        report = api.get(f"/runs/{runs['sft']['id']}/report").json()
        spelling = next(row["cells"] for row in report["rows"] if row["title"] == "spelling")
        assert set(spelling) == {"base", "sft"} and report["missing"] == []
        assert all(cell["low"] <= cell["value"] <= cell["high"] for cell in spelling.values())
        sections = {file.stem for file in (up.base / "report").glob("*.md")}
        assert sections == {"tokenizer-training", "base-model-training", "chat-sft", "chat-evaluation-sft"}
        checkpoint = api.get("/checkpoints", params={"stage": "sft"}).json()["items"][0]
        lineage = api.get(f"/checkpoints/{checkpoint['id']}/lineage").json()
        assert [step["stage"] for step in lineage["steps"]] == ["sft", "base", "tokenizer"]
        assert lineage["complete"] is True and lineage["steps"][1]["data"]["source"] == str(corpus)
        assert (up.base / checkpoint["path"] / "model.safetensors").is_file()
        assert any(0 < said_over_http(api, seed) <= 8 for seed in range(TRIES))
    assert errors == []
