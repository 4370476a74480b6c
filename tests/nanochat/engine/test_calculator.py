"""The calculator: what it knows, and that nothing which a model writes makes it do anything else."""

from __future__ import annotations

import ast
import time
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanochat.engine.calculator import MAX_CHARS, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12+7", "19"), ("1,000 * 3", "3000"), ("1,234,567-1", "1234566"), ("7/2", "3.5"), ("8/2", "4"),
        ("-(3-5)", "2"), ("+3", "3"), ("7//2", "3"), ("7%4", "3"), ("0.1+0.2", "0.3"), (".5*4", "2"),
        ("1e-05*2", "2e-05"), ("10/3", "3.333333333"), ("0.0-0", "0"), ("-0.0", "0"), (" 1 + 1 ", "2"),
        ("'letter'.count('t')", "2"), ('"Letter".count("L") + 1', "2"), ('"a,b".count(",")', "1"),
        ("\"Ärger\".count('Ä')", "1"), ("''.count('a')", "0"), ("'1+1'.count('1')*3", "6"),
        ("(" * 90 + "1" + ")" * 90, "1"),
    ],
)  # fmt: skip
def test_it_knows_arithmetic(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        # no arithmetic
        "", " ", "x", "nan", "inf", "True+1", "1;2", "1 2", "1+", "()", "(1,2)", "1,5", "[1][0]", "\0", "1j",
        "0x1F", "1_000", "1 if 1 else 2", "1if 1else 2", "1<2", "~1", "1@2", "not 1", "1\n+1", "1#2", "3!",
        "2^3",
        # code
        "__import__('os')", "open('x')", "(lambda: 1)()", "().__class__", "f'{1}'", "exit()", "...", "*1",
        "(x:=1)", "1.__class__", "1.0.real", "`1`", "$(1)",
        # strings
        "'a'*9", "'a'", "'a'.upper()", "'a'.count(1)", "'a'.count('')", "'a'.count('a', 0)",
        "'a'.count(*'a')", "x.count('a')", "'a'.count('a').real", "'\\x61'.count('a')", "'a''b'.count('b')",
        "b'a'.count('a')",
        "'a'.count('a')('b')", "'%s'%1", "'a'.count('a'.count('a'))", "5'a'.count('a')", "'a'.count('a')5",
        "e'a'.count('a')", "'a'.count('a')'b'.count('b')", "'a'.count('a').5",
        # numbers without end
        "9**9**9", "2**9**9", "(9**9)**9", "10**20", "9*9*9**9", "9" * 300, "9" * 200, "1e400", "1e15*10",
        "999999999999999*9", "1/1e-308/1e-308", "1/0", "1%0", "1//0.0", "0**-1",
        # digits that are not 0 to 9
        "１+１", "٣*٣", "²", "①", "Ⅷ", "一+一", "𝟙+𝟙", "1\u200b+1", "\ud800",
        # depth and length
        "-" * 90 + "1", "(" * 10_000 + "1" + ")" * 10_000, "1+" * 10_000 + "1",
        "((((", "'" * 199, '"a".count(' * 20, "1" + " " * 10**6,
    ],
    ids=lambda text: ascii(text[:20]),
)  # fmt: skip
def test_it_knows_nothing_else(expression: str) -> None:
    assert calculate(expression) is None


def test_hostile_text_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.process_time()
    for text in (
        "9**9**9**9",
        "(" * 10**7,
        "'" + "a" * 10**7,
        "9" * 10**7,
        "'\".count(" * 10**6,
        "1+" * 99 + "1",
    ):
        calculate(text)
    assert time.process_time() - began < 0.5


@given(st.text(max_size=60) | st.text("0123456789+-*/%.()eE,'\" count", max_size=MAX_CHARS))
@example("1e1-1e1")
def test_whatever_is_written_it_answers_or_does_not(expression: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Python's parser warns about some numbers
        value = calculate(expression)
    assert value is None or abs(float(value)) <= 10**15


@given(st.text("0123456789+-*/%.() ", min_size=1, max_size=30))
def test_what_it_answers_is_what_python_says(expression: str) -> None:
    """Python evaluates here, and only what is made of digits and operators other than powers."""
    if "**" in expression or (value := calculate(expression)) is None:
        return
    assert float(value) == pytest.approx(float(eval(ast.unparse(ast.parse(expression.strip(), mode="eval")))))
