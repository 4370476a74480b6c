"""Two rendezvous agents, as on two hosts that share a base directory, train like one with two ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nanochat.checkpoint import MODEL, find_checkpoints
from nanochat.paths import repo_dir
from tests.nanochat.trainers import DEADLINE_S, Attempt, Home
from tests.services import free_port


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    assert home.train_tokenizer().code == 0
    return home


@pytest.fixture
def agents() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Started launchers; none is left behind."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for agent in started:
        with suppress(ProcessLookupError):
            os.killpg(agent.pid, signal.SIGKILL)
        agent.wait()


def test_two_nodes_train_like_two_ranks_of_one(home: Home, agents: list[subprocess.Popen[bytes]]) -> None:
    config = home.base_config(num_iterations=6, save_every=3, processes=2)
    one = home.run("scripts.base_train", config, run="onenode", ranks=2)
    assert one.code == 0, one.log

    flags = [f"--{key}={value}" for key, value in config.items()]
    port = free_port()
    directory = home.base / "runs" / "twonodes" / "attempt_1"
    environment = home.environment(directory, "twonodes")
    logs = [home.base / f"node{node}.log" for node in range(2)]
    for log in logs:
        argv = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
        argv += ["--rdzv_backend=c10d", f"--rdzv_endpoint=127.0.0.1:{port}", "--local_addr=127.0.0.1"]
        argv += [str(repo_dir() / "scripts" / "base_train.py"), *flags]
        with log.open("wb") as out:
            agents.append(
                subprocess.Popen(
                    argv, cwd=home.base, env=environment, stdout=out, stderr=out, start_new_session=True
                )
            )
    codes = [agent.wait(DEADLINE_S) for agent in agents]
    said = [log.read_text() for log in logs]
    assert codes == [0, 0], "\n".join(said)

    two = Attempt(directory, None, 0)
    assert two.losses() == one.losses() and len(one.losses()) == 6
    places = [find_checkpoints(home.base / "base_checkpoints", run) for run in ("onenode", "twonodes")]
    assert [[place.name for place in found] for found in places] == [["step_000003", "step_000006"]] * 2
    assert (places[0][-1] / MODEL).read_bytes() == (places[1][-1] / MODEL).read_bytes()
    assert sum("step 6/6" in text for text in said) == 1, "only rank 0 of all nodes speaks"
    assert sum("saved" in text for text in said) == 1, "and saves"
