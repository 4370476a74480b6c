"""Docstrings are found by reading source, never by importing it."""

from __future__ import annotations

import argparse
import ast
import asyncio.base_events
import sys
import typing
from pathlib import Path
from types import ModuleType

import pytest

from nanochat.sources import pydocs

LONG = "A sentence that says what this does, long enough to be worth reading by a model."


def by_syntax_tree(source: str) -> set[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, kinds))
    return {text.strip() for text in found if text and len(text.strip()) >= pydocs.MIN_CHARS}


@pytest.mark.parametrize(
    "module", [argparse, typing, asyncio.base_events], ids=lambda module: module.__name__
)
def test_the_scan_finds_every_docstring_that_a_syntax_tree_shows(module: ModuleType) -> None:
    file = Path(str(module.__file__))
    expected = by_syntax_tree(file.read_text(encoding="utf-8"))
    assert len(expected) > 5
    assert expected <= set(pydocs.docstrings(file))


def test_sources_are_never_imported(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.py"
    bomb.write_text(f'"""{LONG}"""\nimport sys\nsys.exploded = True\nraise SystemExit(1)\n')
    assert list(pydocs.docstrings(bomb)) == [LONG]
    assert not hasattr(sys, "exploded")


def test_comments_prefixes_escapes_and_quotes_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "odd.py"
    file.write_text(
        "#!/usr/bin/env python\n# a comment\n\n"
        f'r"""Raw \\d. {LONG}"""\n'
        f"def f(x: int) -> int:  # a note\n    '''Single \\'quotes\\'. {LONG}'''\n"
        f'class C:\n\n    """Ends in a backslash. {LONG}\\\\"""\n'
        f'not_one = """{LONG} {LONG}"""\n'
        'def g():\n    """Short."""\n'
    )
    assert list(pydocs.docstrings(file)) == [
        f"Raw \\d. {LONG}",
        f"Single 'quotes'. {LONG}",
        f"Ends in a backslash. {LONG}\\",
    ]


def test_files_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(f'"""{LONG} \xe9"""'.encode("latin-1"))
    (tmp_path / "open.py").write_text(f'"""{LONG}')
    (tmp_path / "fine.py").write_text(f'"""{LONG}"""')
    found = [text for file in sorted(tmp_path.iterdir()) for text in pydocs.docstrings(file)]
    assert found == [LONG]


def test_documents_are_distinct_and_in_the_same_order_every_time(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.py").write_text(f'"""{LONG}"""\ndef {name}():\n    """{name} {LONG}"""\n')
    first, second = pydocs.documents([tmp_path]), pydocs.documents([tmp_path])
    assert first == second and len(set(first)) == len(first)
    assert first.count(LONG) == 1 and f"b {LONG}" in first
    assert any("The standard type hierarchy" in text for text in first)  # a help topic
