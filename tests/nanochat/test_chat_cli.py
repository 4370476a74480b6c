"""scripts/chat_cli.py, as a person runs it."""

from __future__ import annotations

import os
import pydoc_data.topics
import subprocess
import sys
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
