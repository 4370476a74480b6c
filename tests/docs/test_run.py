"""Every command of the documentation is run: here, by another test that is named here, or by hand.

Here: each `nanochat` verb of a page, in the page's order, as it stands there, against a real server whose
worker ends every run at once; and the scripts of the laptop tutorial, really training, with less of
everything. By hand: what a section marks as needing a GPU, and benchmarks, whose pages have their figures.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nanochat.paths import repo_dir
from nanochat_client.types.keys import KeyCreate, Scope
from server.keys import local
from tests import services
from tests.client.conftest import Cli, put_events, put_log
from tests.docs.commands import commands_of
from tests.docs.test_docs import PAGES, ROOT
from tests.server.checkpoints.chain import checkpoint
from tests.server.fake_worker import FakeWorker, post_run, until
from tests.server.files.uploads import GOOD
from tests.services import Service

SECTION = re.compile(r"^(?=#+ )", re.MULTILINE)
NEEDS = re.compile(r"needs (?:a GPU|two GPUs)", re.IGNORECASE)
#: beginnings of commands, and the test that runs them, with words that stand in it
ELSEWHERE = {
    "make up": ("tests/e2e/test_demo.py", "server.up"),
    "nanochat up": ("tests/e2e/test_demo.py", "server.up"),
    "nanochat server": ("tests/deploy/test_two_servers.py", "server"),
    "python -m server": ("tests/deploy/test_two_servers.py", "server"),
    "nanochat worker": ("tests/worker/conftest.py", '"-m", "worker"'),
    "python -m worker": ("tests/worker/conftest.py", '"-m", "worker"'),
    "nanochat chat": ("tests/client/test_cli.py", '"chat"'),
    "nanochat doctor": ("tests/client/test_doctor.py", "doctor"),
    "nanochat --install-completion": ("tests/client/test_cli.py", "install-completion"),
    "nanochat export": ("tests/nanochat/interop/test_hf.py", "export"),
    "nanochat import": ("tests/nanochat/interop/test_original.py", "import"),
    "nanochat data get": ("tests/nanochat/tasks/test_datasets.py", '"get"'),
    "nanochat db": ("tests/server/test_backup.py", "restore"),
    "nanochat keys create --local": ("tests/server/keys/test_keys.py", "local"),
    "nanochat plan base --config auto --probe": ("tests/client/test_plan.py", "--probe"),
    "nanochat run base --config NAME --gpus 16 --nodes 2": ("tests/server/gangs/test_gangs.py", "min_nodes"),
    "python scripts/tok_train.py": ("tests/nanochat/test_scripts.py", "tok_train.py"),
    "python scripts/base_train.py": ("tests/nanochat/train/test_base.py", "scripts.base_train"),
    "torchrun --nproc_per_node=2": ("tests/nanochat/train/test_base.py", "ranks=ranks"),
    "python scripts/chat_sft.py": ("tests/nanochat/train/test_sft.py", "scripts.chat_sft"),
    "python scripts/chat_eval.py": ("tests/nanochat/evals/test_chat.py", "scripts.chat_eval"),
    "python -m scripts.chat_eval": ("tests/nanochat/evals/test_chat.py", "scripts.chat_eval"),
    "python scripts/chat_cli.py": ("tests/nanochat/test_chat_cli.py", "chat_cli"),
    "python scripts/chat_web.py": ("tests/nanochat/test_chat_web.py", "chat_web"),
    "python scripts/wordcount.py": ("tests/nanochat/test_stages_page.py", "wordcount"),
    "python -m nanochat.dataset": ("tests/nanochat/test_dataset.py", "test_the_command_builds"),
    "python -m nanochat.report": ("tests/nanochat/report/test_report.py", 'main(["reset"])'),
    "python -m nanochat.planner_check": ("tests/nanochat/planner/test_memory.py", "planner_check"),
    "python3 docker/make_env.py": ("tests/deploy/test_containers.py", "make_env"),
    "python -c from server import migrate": ("tests/server/test_migrate.py", "downgrade"),
    "python -c from nanochat.sandbox.programs": ("tests/nanochat/sandbox/test_walls.py", "protection()"),
    "python -m tests.clients.witness": ("tests/clients/test_witness.py", "witness"),
    "python -m tests.faults": ("tests/faults/test_faults.py", "campaign"),
    "make site": ("tests/docs/test_docs.py", "mkdocs"),
    "make docs": ("tests/server/test_reference.py", "reference"),
    "make test-hosts": ("tests/hosts/test_cut_off.py", "hosts"),
    "make test-faults": ("tests/faults/test_faults.py", "campaign"),
    "make test-clients": ("tests/clients/test_langchain.py", "langchain"),
    "python -m http.server": ("tests/docs/test_docs.py", "mkdocs"),
}  # fmt: skip
#: `make test` is what runs the tests; benchmarks take up to hours, and their figures say when they were run
BY_HAND = (
    "make test", "make lint", "make setup", "make help", "make audit", "make bench", "make fuzz",
    "python -m nanochat.bench_", "python -m nanochat.ablation", "python -m tests.bench_",
    "python -m tests.nanochat.tasks.all_humaneval", "python -m nanochat.stages",
)  # fmt: skip
MINE = "depth = 2\nmax_seq_len = 64\ndevice_batch_size = 2\ntotal_batch_size = 256\n"


def sections(page: Path) -> Iterator[tuple[list[str], bool]]:
    """Every command of a page, and whether its section says that it needs a GPU."""
    for text in SECTION.split(page.read_text("utf-8")):
        marked = NEEDS.search(text.partition("\n")[0]) is not None
        for words in commands_of(text):
            yield words, marked


def begins(words: list[str], beginnings: Any) -> str | None:
    line = " ".join(words)
    return max((one for one in beginnings if f"{line} ".startswith(one)), key=len, default=None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_run_somewhere(page: Path) -> None:
    lost = [
        " ".join(words)
        for words, marked in sections(page)
        if not (marked or words[0] == "nanochat" or begins(words, ELSEWHERE) or begins(words, BY_HAND))
    ]
    assert not lost, "run them in a test, and name it in ELSEWHERE:\n" + "\n".join(lost)


@pytest.mark.parametrize(("command", "where"), ELSEWHERE.items())
def test_the_test_that_runs_a_command_is_there(command: str, where: tuple[str, str]) -> None:
    file, words = where
    assert words in (ROOT / file).read_text("utf-8"), command


# ---------------------------------------------------------------- nanochat …


class Player(threading.Thread):
    """A worker with two GPUs that ends every run at once, as if it had been trained. `lock`: it rests."""

    def __init__(self, service: Service) -> None:
        super().__init__(daemon=True)
        self.service, self.lock, self.over = service, threading.Lock(), threading.Event()
        self.worker = FakeWorker(service, gpus=2, slots=4)

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.worker.beat()
            with self.lock:
                if self.worker.messages():
                    self.train()

    def train(self) -> None:
        answer = self.worker.try_claim(self.worker.take_message())
        if answer.status_code != 200:  # the run was paused or cancelled since
            return
        claim = answer.json()
        run = self.service.client.get(f"/runs/{claim['run_id']}").json()
        put_log(self.worker, claim, "step 1\n")
        metric = {"kind": "metric", "step": 1, "values": {"train/loss": 3.0, "val/bpb": 1.5}}
        made = [] if run["stage"].endswith(("eval", "loss")) else [checkpoint(run)]
        put_events(self.worker, claim, metric, *made)
        self.worker.finish(claim)


class Reader:
    """Types the commands of a page, with what is at hand for its placeholders."""

    def __init__(self, service: Service, player: Player, cli: Cli) -> None:
        self.service, self.player, self.cli = service, player, cli

    def type(self, words: list[str]) -> tuple[int, str, str]:
        if words[1:3] == ["run", "base"]:
            self.run("base")  # the pages before have made a tokenizer
        argv = [self.put(word, words, at) for at, word in enumerate(words)]
        return self.cli(*argv[1:])

    def put(self, word: str, words: list[str], at: int) -> str:
        match word:
            case "ID" if words[at - 1] == "--parent":
                return self.run("sft" if "chat_eval" in words else "base")
            case "ID" if words[1] == "keys":
                body = {"name": "gone", "scopes": ["read"]}
                return str(self.service.client.post("/keys", json=body).raise_for_status().json()["id"])
            case "ID":
                return self.run("base")
            case "PIPELINE":
                return str(self.service.client.get("/pipelines").json()["items"][0]["id"])
            case "CHECKPOINT":
                found = self.service.client.get(f"/runs/{self.run('base')}/checkpoints").json()
                return str(found["items"][0]["id"])
            case "NAME":
                return "mine"
        return word

    def run(self, stage: str) -> str:
        """One that has succeeded, as the pages before have made it."""
        query = {"stage": stage, "state": "succeeded"}
        if found := self.service.client.get("/runs", params=query).json()["items"]:
            return str(found[0]["id"])
        steps = {"base": ["tokenizer", "base"], "sft": ["tokenizer", "base", "sft"]}[stage]
        body = {"name": "before", "steps": [{"name": name, "stage": name, "gpus": 0} for name in steps]}
        made = self.service.client.post("/pipelines", json=body)
        assert made.status_code == 201, made.text
        last = made.json()["runs"][-1]["id"]
        until(self.service, last, "succeeded", timeout_s=30)
        return str(last)


@pytest.fixture(params=["sqlite"])
def database_url(sqlite_template: Any, tmp_path: Path) -> str:
    return services.copy_sqlite(sqlite_template, tmp_path)


def _run_to_its_end(program: str, argv: list[str]) -> None:
    """In place of `os.execv`: a verb that becomes another process would end the tests."""
    environ = os.environ | {"PYTHONPATH": str(repo_dir())}
    raise SystemExit(subprocess.run([program, *argv[1:]], env=environ, timeout=100).returncode)


@pytest.fixture
def reader(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Reader]:
    """Somebody with a key for everything, in a directory with the files that the pages name."""
    key = local.create(service.settings, KeyCreate(name="reader", scopes=[Scope.ADMIN]))
    service.client.headers["authorization"] = f"Bearer {key}"
    monkeypatch.setenv("NANOCHAT_URL", service.base_url)
    monkeypatch.setenv("NANOCHAT_API_KEY", key)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(service.settings.base_dir))
    here = tmp_path / "here"
    here.mkdir()
    (here / "support.jsonl").write_bytes(GOOD)
    (here / "books.txt").write_text("A book.\n")
    (here / "mine.py").write_text(MINE)
    monkeypatch.chdir(here)
    monkeypatch.setattr("nanochat_client.cli.service.os.execv", _run_to_its_end)
    player = Player(service)
    player.start()
    yield Reader(service, player, Cli(capsys))
    player.over.set()
    player.join(10)


def typed(page: Path) -> list[list[str]]:
    return [
        words
        for words, marked in sections(page)
        if words[0] == "nanochat" and len(words) > 1 and not marked and not begins(words, ELSEWHERE)
        and "…" not in words and words not in MENTIONED
    ]  # fmt: skip


#: verbs that a sentence is about, without what they need
MENTIONED = [["nanochat", "plan"]]
#: what these verbs are about must not have ended yet; how such a run comes to be
UNENDED: dict[str, Callable[[Service, str], Any]] = {
    "pause": lambda service, run: None,
    "stop": lambda service, run: None,
    "resume": lambda service, run: service.client.post(f"/runs/{run}/pause").raise_for_status(),
    "retry": lambda service, run: service.client.post(f"/runs/{run}/cancel").raise_for_status(),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if typed(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_verbs_of_a_page_do_what_they_are_asked(page: Path, reader: Reader) -> None:
    for words in typed(page):
        if (prepare := UNENDED.get(words[1])) and words[2] == "ID":
            with reader.player.lock:
                run = post_run(reader.service)["id"]
                prepare(reader.service, run)
                status, out, err = reader.cli(words[1], run, *words[3:])
        else:
            status, out, err = reader.type(words)
        assert status == 0, f"{shlex.join(words)}\n{out}\n{err}"


# ---------------------------------------------------------------- scripts of the laptop tutorial

TEXT = f"--data={ROOT / 'docs' / 'decisions'}"
#: flags of the page, and the same with less of everything
LESS = {
    "--vocab_size=4096": ["--vocab_size=300", TEXT],
    "--num_iterations=100": ["--num_iterations=3", TEXT, "--sample_every=0"],
    "--num_iterations=50": ["--num_iterations=2"],
    "--checkpoint=chatsft_checkpoints/latest.pt": [
        "--checkpoint=chatsft_checkpoints/latest.pt", "--prompt=Who are you?", "--max_tokens=4",
    ],
}  # fmt: skip


@pytest.mark.timeout(400)
def test_the_scripts_of_the_laptop_tutorial_train_a_model_that_answers(tmp_path: Path) -> None:
    page = ROOT / "docs" / "tutorials" / "laptop.md"
    scripts = [words for words, _ in sections(page) if words[0] == "python"]
    assert [Path(words[1]).stem for words in scripts] == ["tok_train", "base_train", "chat_sft", "chat_cli"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("NANOCHAT_")}
    environ |= {"NANOCHAT_BASE_DIR": str(tmp_path / "base"), "OMP_NUM_THREADS": "1"}
    for _, script, *flags in scripts:
        less = [word for flag in flags for word in LESS.get(flag, [flag])]
        done = subprocess.run(
            [sys.executable, str(repo_dir() / script), *less], cwd=tmp_path, env=environ,
            capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, f"{script} {less}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stdout.strip()
