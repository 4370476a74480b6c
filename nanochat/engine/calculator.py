"""The tool of the chat format: arithmetic on numbers, and how often a letter is in a word.

    calculate("1,250 * (3 + 4) / 2")        # "4375"
    calculate('"letter".count("t")')        # "2"

The text is at most 200 characters of digits and + - * / // % . ( ), checked before Python's parser sees it,
then walked as a syntax tree; nothing is executed. Every number on the way is at most 10^15.

Not covered: names, functions, powers, strings but in front of and inside `.count(…)`. What is not covered has
no answer, and the model goes on without one.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_CHARS = 200
MAX_RESULT = 10**15
_COUNT = re.compile(r"""(["'])([^"'\\]*)\1\.count\((["'])([^"'\\]+)\3\)""")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})", re.ASCII)
_ARITHMETIC = re.compile(r"[0-9eE+\-*/%.() ]+")
_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def calculate(expression: str) -> str | None:
    """The value of `expression` as text, or None when it is not plain, bounded arithmetic."""
    if len(expression) > MAX_CHARS:
        return None
    text = _COUNT.sub(lambda call: f"({call[2].count(call[4])})", expression)
    text = _THOUSANDS.sub("", text).strip()
    if not _ARITHMETIC.fullmatch(text):
        return None
    try:
        value = _value(ast.parse(text, mode="eval").body, depth=0)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def _value(node: ast.expr, depth: int) -> int | float:
    if depth > 50:
        raise ValueError("nested too deeply")
    match node:
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, depth + 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, depth + 1)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _bounded(_OPERATORS[type(op)](_value(left, depth + 1), _value(right, depth + 1)))
        case _:
            raise ValueError("not arithmetic")


def _bounded(number: int | float) -> int | float:
    if not abs(number) <= MAX_RESULT:  # also refuses NaN
        raise ValueError("out of bounds")
    return number
