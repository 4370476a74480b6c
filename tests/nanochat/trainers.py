"""Real trainers in real processes, on a corpus and models small enough for a test."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from nanochat.configurator import validate
from nanochat.paths import repo_dir
from nanochat.stages import STAGES

DEADLINE_S = 120.0
BASE = {
    "device": "cpu",
    "dtype": "float32",
    "depth": 1,
    "max_seq_len": 32,
    "device_batch_size": 2,
    "total_batch_size": 128,
    "num_iterations": 12,
    "eval_every": 0,
    "sample_every": 0,
    "core_metric_every": 0,
}
TOKENIZER = {"vocab_size": 300}
TRAINERS = {
    "tokenizer": "nanochat.train.tokenizer",
    "base": "nanochat.train.base",
    "mid": "nanochat.train.mid",
    "sft": "nanochat.train.sft",
    "tok_eval": "nanochat.evals.tokenizers",
    "base_eval": "nanochat.evals.core",
    "rl": "nanochat.train.rl",
    "base_loss": "nanochat.evals.base_loss",
    "chat_eval": "nanochat.evals.chat",
}


def write_corpus(folder: Path, documents: int = 400) -> Path:
    """Text with something to learn in it, as one file of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(3)
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "while",
        "two",
        "dogs",
        "ran",
        "after",
        "seven",
        "small",
        "blue",
        "birds",
    ]
    lines = [
        json.dumps({"text": " ".join(rng.choices(words, k=rng.randint(5, 60)))}) for _ in range(documents)
    ]
    (folder / "text.jsonl").write_text("\n".join(lines))
    return folder


@dataclass
class Home:
    """A base directory with a corpus, and the runs made in it."""

    base: Path
    corpus: Path = field(init=False)

    def __post_init__(self) -> None:
        self.corpus = write_corpus(self.base / "corpus")

    def environment(self, attempt: Path | None, run_id: str) -> dict[str, str]:
        kept = {
            key: os.environ[key]
            for key in (
                "PATH",
                "HOME",
                "LANG",
                "COVERAGE_PROCESS_START",
                "WANDB_MODE",
                "WANDB_API_KEY",
                "NANOCHAT_KERNEL_DIR",
            )
            if key in os.environ
        }
        kept |= {"PYTHONFAULTHANDLER": "1", "PYTHONPATH": str(repo_dir())}
        kept |= {"NANOCHAT_BASE_DIR": str(self.base), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        if attempt is not None:
            attempt.mkdir(parents=True, exist_ok=True)
            kept |= {"NANOCHAT_ATTEMPT_DIR": str(attempt), "NANOCHAT_RUN_ID": run_id}
        return kept

    def start(
        self,
        script: str,
        config: dict[str, Any],
        *,
        run: str,
        attempt: int = 1,
        ranks: int = 1,
        path: Path | None = None,
    ) -> Attempt:
        """Start a trainer the way the worker does; it is not waited for. `path`: first to import from."""
        directory = self.base / "runs" / run / f"attempt_{attempt}"
        environment = self.environment(directory, run)
        if path is not None:
            environment["PYTHONPATH"] = f"{path}:{environment['PYTHONPATH']}"
        (directory / "config.json").write_text(json.dumps(config))
        launcher = [sys.executable, "-m"]
        if ranks > 1:
            launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
            launcher += ["--max-restarts", "0", "-m"]
        argv = [*launcher, script, "--config", str(directory / "config.json")]
        with (directory / "run.log").open("wb") as log:
            process = subprocess.Popen(
                argv,
                cwd=self.base,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Attempt(directory, process)

    def run(
        self,
        script: str,
        config: dict[str, Any],
        *,
        run: str,
        attempt: int = 1,
        ranks: int = 1,
        path: Path | None = None,
    ) -> Attempt:
        """A trainer from start to end; one rank runs in this process, which saves seconds of importing."""
        if ranks == 1:
            return self._run_here(script, config, run=run, attempt=attempt)
        started = self.start(script, config, run=run, attempt=attempt, ranks=ranks, path=path)
        started.wait()
        return started

    def _run_here(self, script: str, config: dict[str, Any], *, run: str, attempt: int = 1) -> Attempt:
        directory = self.base / "runs" / run / f"attempt_{attempt}"
        environment = self.environment(directory, run)
        stage = next(stage for stage in STAGES.values() if stage.script == script)
        trainer = import_module(TRAINERS[stage.name])
        output = io.StringIO()
        code = 0
        with mock_environment(environment, self.base), redirect_stdout(output), redirect_stderr(output):
            try:
                trainer.run(validate(stage, config, 1))
            except Exception:
                code = 1
        (directory / "run.log").write_text(output.getvalue())
        return Attempt(directory, None, code)

    def base_config(self, **overrides: Any) -> dict[str, Any]:
        return {**BASE, "data": str(self.corpus), **overrides}

    def train_tokenizer(self) -> Attempt:
        return self.run("scripts.tok_train", {**TOKENIZER, "data": str(self.corpus)}, run="tok")


@dataclass
class Attempt:
    """A trainer's process and what it left behind."""

    directory: Path
    started: subprocess.Popen[bytes] | None
    code: int | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self.started is not None, "it ran in this process"
        return self.started

    def wait(self) -> int:
        self.code = self.process.wait(DEADLINE_S)
        return self.code

    @property
    def log(self) -> str:
        return (self.directory / "run.log").read_text()

    @property
    def failure(self) -> dict[str, str] | None:
        file = self.directory / "failure.json"
        return json.loads(file.read_text()) if file.exists() else None

    def events(self, kind: str) -> list[dict[str, Any]]:
        file = self.directory / "events.jsonl"
        lines = (
            file.read_text().split("\n")[:-1] if file.exists() else []
        )  # a last line may be half there yet
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def losses(self) -> dict[int, float]:
        metrics = self.events("metric")
        return {
            event["step"]: event["values"]["train/loss"]
            for event in metrics
            if "train/loss" in event["values"]
        }

    def until(self, condition: Callable[[Attempt], bool]) -> None:
        """Wait until `condition` holds; fails when the trainer ends first or nothing happens."""
        end = time.monotonic() + DEADLINE_S
        while not condition(self):
            assert self.process.poll() is None, f"the trainer has ended:\n{self.log}"
            assert time.monotonic() < end, f"waited in vain:\n{self.log}"
            time.sleep(0.02)

    def kill_everything(self) -> None:
        """SIGKILL to the launcher and to every rank (torchrun gives each a session of its own)."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            os.kill(pid, signal.SIGKILL)
        self.wait()


@contextmanager
def mock_environment(environment: dict[str, str], directory: Path) -> Iterator[None]:
    """Exactly these variables and this working directory, for a while."""
    before, place = dict(os.environ), Path.cwd()
    threads = torch.get_num_threads()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)
        torch.set_num_threads(threads)


def descendants(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
