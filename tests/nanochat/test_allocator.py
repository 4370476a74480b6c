"""Trainers run with huge pages, started anew once, whoever starts them; a user's own setting stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.allocator import with_huge_pages
from nanochat.paths import repo_dir

PROGRAM = """
import json, os, sys
from nanochat.allocator import start_again_with_huge_pages
with open("starts", "a") as file:
    file.write("x")
start_again_with_huge_pages()
print(json.dumps([os.environ["GLIBC_TUNABLES"], sys.argv[1:], os.getpid()]))
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=1", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_the_setting_is_added_to_what_the_user_has_set(given: str, expected: str) -> None:
    assert with_huge_pages({"A": "b", "GLIBC_TUNABLES": given}) == {"A": "b", "GLIBC_TUNABLES": expected}


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
@pytest.mark.parametrize(("given", "starts"), [("", "xx"), ("glibc.malloc.hugetlb=0", "x")])
def test_a_program_starts_again_once_with_the_same_arguments_and_id(
    tmp_path: Path, given: str, starts: str
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environ = {**os.environ, "PYTHONPATH": str(repo_dir()), "GLIBC_TUNABLES": given}
    command = [sys.executable, "program.py", "--a=b c", "ü"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=30)
    tunables, arguments, pid = json.loads(out)
    assert (tunables, arguments, pid) == (
        given or "glibc.malloc.hugetlb=1",
        ["--a=b c", "ü"],
        process.pid,
    )
    assert (tmp_path / "starts").read_text() == starts
