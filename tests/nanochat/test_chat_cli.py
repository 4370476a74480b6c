"""scripts/chat_cli.py, as a person runs it."""

from __future__ import annotations

import fcntl
import os
import pydoc_data.topics
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nanochat.checkpoint import save_checkpoint
from nanochat.gpt import GPT, GPTConfig
from nanochat.paths import step_dir
from nanochat.tokenizer import Tokenizer

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tokenizer = Tokenizer.train(iter(pydoc_data.topics.topics.values()), 300)
    model = GPT(GPTConfig(64, tokenizer.vocab_size, 1, 1, 1, 32))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2, generator=generator)
    save_checkpoint(step_dir(tmp_path, "sft", "d1", 3), model, tokenizer, {"stage": "sft", "step": 3})
    return tmp_path


def chat(base: Path, *argv: str, says: str = "") -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(REPO / "scripts" / "chat_cli.py"), *argv]
    return subprocess.run(
        command, input=says, env=environ, capture_output=True, text=True, timeout=60, cwd=base
    )


def test_one_prompt_gets_one_answer_and_a_seed_repeats_it(base: Path) -> None:
    link = "chatsft_checkpoints/latest.pt"
    first, again = (
        chat(base, f"--checkpoint={link}", "-p", "Who?", "--seed=3", "--max_tokens=8") for _ in range(2)
    )
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == again.stdout and first.stdout.strip()


def test_a_conversation_outgrows_the_context_and_goes_on(base: Path) -> None:
    done = chat(base, "--max_tokens=10", says="hello there\n" * 6)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("> ") == 7


def test_help_lists_every_flag(base: Path) -> None:
    done = chat(base, "--help")
    assert done.returncode == 0, done.stderr
    for flag in ("--checkpoint", "--max_tokens", "--prompt", "--temperature", "--top_k", "--seed"):
        assert flag in done.stdout


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["--checkpoint=nowhere"], 1, "nowhere"),
        (["--max_tokens=0"], 2, "--max_tokens"),
        (["--temperature=9"], 2, "--temperature"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(base: Path, argv: list[str], code: int, says: str) -> None:
    done = chat(base, *argv)
    assert done.returncode == code and says in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that goes on until it may not say more."""
    base = tmp_path_factory.mktemp("endless")
    tokenizer = Tokenizer.train(iter(pydoc_data.topics.topics.values()), 300)
    model = GPT(GPTConfig(65536, tokenizer.vocab_size, 1, 1, 1, 32))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2, generator=generator)
        model.lm_head.weight[-9:] = 0  # no special token is ever the likeliest one
    save_checkpoint(step_dir(base, "sft", "d1", 3), model, tokenizer, {"stage": "sft", "step": 3})
    return base


class Terminal:
    """A program with a terminal of its own, as a person has it: keys go in, the screen comes out."""

    def __init__(self, base: Path, *argv: str) -> None:
        self.keys, side = os.openpty()
        environ = {**os.environ, "NANOCHAT_BASE_DIR": str(base), "OMP_NUM_THREADS": "1", "TERM": "dumb"}
        self.process = subprocess.Popen(
            [sys.executable, str(REPO / "scripts" / "chat_cli.py"), *argv],
            stdin=side, stdout=side, stderr=side, env=environ, cwd=base, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(side)
        self.screen = ""

    def type(self, keys: str) -> None:
        os.write(self.keys, keys.encode())

    def until(self, text: str, count: int = 1) -> str:
        """Everything on the screen once `text` is there `count` times."""
        end = time.monotonic() + 60
        while self.screen.count(text) < count:
            ready, _, _ = select.select([self.keys], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"waited in vain for {text!r}:\n{self.screen[-2000:]}"
            try:
                self.screen += os.read(self.keys, 65536).decode("utf-8", "replace")
            except OSError:  # Linux: the other side is closed
                pytest.fail(f"it left before it said {text!r}:\n{self.screen[-2000:]}")
        return self.screen

    def streams(self, characters: int = 200) -> None:
        """So much more is on the screen: an answer is being given."""
        enough = len(self.screen) + characters
        while len(self.screen) < enough:
            self.screen += os.read(self.keys, 65536).decode("utf-8", "replace")

    def press_until(self, key: str, text: str) -> None:
        """`key` again and again until `text` is there: readline shows its prompt before it listens."""
        end = time.monotonic() + 60
        while text not in self.screen:
            assert time.monotonic() < end, f"{key!r} did nothing:\n{self.screen[-2000:]}"
            self.type(key)
            while select.select([self.keys], [], [], 0.5)[0]:
                self.screen += os.read(self.keys, 65536).decode("utf-8", "replace")

    def exit_code(self) -> int:
        """Its exit code; what it still writes is read, so that it never waits for us."""
        while True:
            try:
                if not os.read(self.keys, 65536):
                    break
            except OSError:
                break
        return self.process.wait(60)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.keys)


@pytest.fixture
def terminal(endless: Path, request: pytest.FixtureRequest) -> Iterator[Terminal]:
    found = Terminal(endless, "-t", "0", "--max_tokens=60000", *getattr(request, "param", ()))
    yield found
    found.close()


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal: Terminal) -> None:
    terminal.until("> ")
    terminal.type("Who are you?\n")
    terminal.until("you?\r\n")
    terminal.streams()
    terminal.type("\x03")
    assert "(stopped)\r\n> " in terminal.until("(stopped)\r\n> ")
    terminal.press_until("\x03", "Ctrl-D leaves)\r\n> ")  # at the prompt: nothing to stop
    terminal.type("And now?\n")  # what was said before is in the conversation
    terminal.until("now?\r\n")
    terminal.streams()
    terminal.type("\x03")
    terminal.until("(stopped)\r\n> ", 2)
    terminal.type("\x04")
    assert terminal.exit_code() == 0 and "Traceback" not in terminal.screen


@pytest.mark.parametrize("terminal", [("-p", "Who?")], indirect=True)
def test_ctrl_c_ends_a_single_answer_with_130(terminal: Terminal) -> None:
    terminal.streams()
    terminal.type("\x03")
    terminal.until("(stopped)")
    assert terminal.exit_code() == 130
