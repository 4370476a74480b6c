"""docs/stages.md, done literally: its files in a copy of the checkout, its commands in their order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.paths import repo_dir

PAGE = (repo_dir() / "docs" / "stages.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILES = ["configs/demo/tiny.py", "nanochat/tasks/opposites.py", "nanochat/stages/wordcount.py",
         "scripts/wordcount.py", "scripts/mine.py"]  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("checkout")
    for room in ("nanochat", "scripts", "configs"):
        shutil.copytree(repo_dir() / room, place / room, ignore=shutil.ignore_patterns("__pycache__"))
    (place / "docs").mkdir()
    for page in ("stages.md", "architecture.md", "performance.md"):  # a corpus, small and here
        shutil.copy(repo_dir() / "docs" / page, place / "docs")
    return place


def run(command: str, checkout: Path) -> str:
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "NANOCHAT_BASE_DIR": str(checkout / "base"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=checkout, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(600)  # six programs, one after the other
def test_every_file_and_command_of_the_page_works(checkout: Path) -> None:
    written, said = [], ""
    for language, body in BLOCK.findall(PAGE):
        if language == "bash":
            said += run(body, checkout)
            continue
        name, _, text = body.partition("\n")
        (checkout / name.removeprefix("# ")).write_text(text, encoding="utf-8")
        written.append(name.removeprefix("# "))
    assert written == FILES
    assert "step 4/4" in said and "val/bpb" in said
    assert re.search(r"opposites .* of 2, 95 %", said), said
    assert re.search(r"^wordcount +Word count +scripts.wordcount", said, re.MULTILINE)
    counted = [line.split() for line in said.splitlines() if re.fullmatch(r" *[\d,]+ \S+", line)]
    assert len(counted) == 3 and "the" in {word for _, word in counted}


def test_no_file_that_exists_has_to_be_edited() -> None:
    assert not [name for name in FILES if (repo_dir() / name).exists()]
