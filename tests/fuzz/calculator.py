"""What a model gives its calculator: a short plain number, the right one, or no answer; at once."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from fractions import Fraction

from nanochat.engine.calculator import MAX_RESULT, calculate
from tests.fuzz.promises import nothing_happens

MAX_BYTES = 240
IS_JSON = False
WORDS = (
    '.count("',
    '")',
    '"',
    "'",
    "**",
    "//",
    "%",
    "1e15",
    "1e-300",
    "1,000",
    ".5",
    "5.",
    "(",
    ")",
    "- ",
    "0",
    "e",
    "é",
    "٣",
)
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?")
EXACT = {
    ast.Add: Fraction.__add__,
    ast.Sub: Fraction.__sub__,
    ast.Mult: Fraction.__mul__,
    ast.Div: Fraction.__truediv__,
    ast.FloorDiv: Fraction.__floordiv__,
}


def seeds() -> Iterator[bytes]:
    for text in (
        "1,250 * (3 + 4) / 2", '"letter".count("t")', "-(2 - 5) // 2 % 4", "0.1 + .2", "1e15 - 1", "1 / 3",
        "2 ** 9", "'banana'.count('an') + 1", "((((1))))", "1 / 0", "7 // -2", "--1",
    ):  # fmt: skip
        yield text.encode()


def one(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    began = time.process_time()
    with nothing_happens("compile"):
        said = calculate(text)
    assert time.process_time() - began < 1, "a second for one sum"
    if said is None:
        return
    assert NUMBER.fullmatch(said) and len(said) <= 24, said
    assert abs(Fraction(said)) <= MAX_RESULT
    if (right := exact(text)) is not None:
        assert abs(Fraction(said) - right) <= Fraction(1, 10**6) * max(1, abs(right)), (
            f"{said}, not {float(right)}"
        )


def exact(text: str) -> Fraction | None:
    """The value of a sum of whole numbers; None where floats would round first, and for other texts."""
    if (
        not re.fullmatch(r"[0-9+\-*/() ]+", text)
        or len(re.findall("[0-9]", text)) > 12
        or text.count("/") > 1
    ):
        return None
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() as number):
            return Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in EXACT:
            return Fraction(EXACT[type(op)](_value(left), _value(right)))
    raise ValueError("no sum")
