"""Names of uploaded files, and which of them a config names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat import files

BASE = Path("/base")
HOSTILE = [
    "", ".txt", "..", "../a.txt", "/a.txt", "a/b.txt", "a\\b.txt", "a.txt\0", "a.txt\n", "a\0.txt", "A.txt",
    "ü.txt", "a b.txt", "a,b.txt", "a*2.txt", "%2e%2e.txt", "-a.txt", ".hidden.txt", "a" * 61 + ".txt",
    "a.exe", "a.txt.gz",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_a_plain_one_or_none(name: str) -> None:
    with pytest.raises(ValueError):
        files.place(BASE, "text", name)


def test_each_kind_has_its_endings() -> None:
    assert files.relative("conversations", "support.jsonl") == "files/conversations/support.jsonl"
    assert files.place(BASE, "preset", "mine.py") == BASE / "files/preset/mine.py"
    assert files.place(BASE, "preset", "mine.json") == BASE / "files/preset/mine.json"
    assert files.namesakes("preset", "mine.json") == ["mine.py"]
    assert files.namesakes("text", "mine.txt") == []
    for kind, name in (("conversations", "a.txt"), ("preset", "a.toml"), ("text", "a.py")):
        with pytest.raises(ValueError, match=f"a file of {kind} ends in"):
            files.relative(kind, name)
    with pytest.raises(KeyError):
        files.relative("../x", "a.txt")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/home/ada/My Books (2).TXT", "my-books-2.txt"),
        ("C:\\data\\Été.jsonl", "ete.jsonl"),
        ("..hidden.md", "hidden.md"),
        ("x" * 100 + ".parquet", "x" * 56 + ".parquet"),
        ("语料.txt", ""),
        ("README", ""),
        ("a/", ""),
    ],
)
def test_what_a_user_calls_a_file_leads_to_a_name(text: str, name: str) -> None:
    assert files.plain_name(text) == name


@given(st.text() | st.text(alphabet="aZ9 ._-/\\ü", max_size=80))
def test_a_plain_name_is_one_that_is_taken_or_nothing(text: str) -> None:
    name = files.plain_name(f"{text}.txt")
    assert name == "" or files.check_name("text", name) == name


def test_a_config_names_files_in_many_ways() -> None:
    config = {
        "data": "/base/files/text/../text/books.txt",
        "tasks": "sums, files/conversations/a.jsonl[:100]*2,./files/conversations/b.jsonl",
        "run": "files",
        "depth": 4,
    }
    assert files.named(config, BASE) == {
        "files/text/books.txt": "data",
        "files/conversations/a.jsonl": "tasks",
        "files/conversations/b.jsonl": "tasks",
    }
    assert files.named({"data": "pydocs", "tasks": "../files/x,/files/text/a.txt,"}, BASE) == {}


def test_a_directory_needs_every_file_in_it() -> None:
    assert files.needs({"data": "files/text"}, BASE, "files/text/books.txt")
    assert files.needs({"data": "files/text/"}, BASE, "files/text/books.txt")
    assert not files.needs({"data": "files/text"}, BASE, "files/conversations/a.jsonl")
    assert not files.needs({"data": "files/text/book"}, BASE, "files/text/books.txt")
