"""A preset file, read as Python and as JSON: literals or PresetError, and nothing is ever executed.

What is read then goes to every stage: a config that is standard JSON and means the same when read again, or
ConfigError with a pointer.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from nanochat.configurator import (
    MAX_NUMBER,
    ConfigError,
    PresetError,
    parse_json_preset,
    parse_preset,
    preset_files,
    validate,
)
from nanochat.stages import STAGES
from tests.fuzz.promises import nothing_happens, standard, storable, storable_text

MAX_BYTES = 4096
IS_JSON = False
SOURCE = "<fuzz>"
WORDS = (
    *{name for stage in STAGES.values() for name in stage.config.model_fields},
    " = ", "\n", "1", "-1", "0.5", "1e308", "1e999", "10**30", "9**9**9", "**", "//", "True", "None", '"x"',
    "(", ")", "[", "]", "{", "}", "'\\ud800'", "'\\x00'", "__import__", "open(", "lambda: ", "f'{",
    "# coding: ", "if ", "else ", "import ", ".__class__", "NaN", "Infinity", "null", "true", ': "',
)  # fmt: skip


def seeds() -> Iterator[bytes]:
    """The presets that ship, and the same as resolved configs are written: as JSON."""
    for path in preset_files().values():
        data = path.read_bytes()
        yield data
        values = parse_preset(data.decode(), SOURCE)
        for name in ("base", "sft", "rl", "tokenizer", "chat_eval"):
            if values.keys() <= STAGES[name].config.model_fields.keys():
                yield (
                    validate(STAGES[name], values, 1 if "processes" in values else 2)
                    .model_dump_json()
                    .encode()
                )
                break


def one(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for parse in (parse_preset, parse_json_preset):
        values = _read(parse, text)
        if values is not None:
            if parse is parse_preset:
                _literals(values)
            for name in STAGES:
                _validate(name, values, ranks=1 + len(data) % 8)


def _read(parse: Callable[[str, str], dict[str, Any]], text: str) -> dict[str, Any] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in a text: Python looks the line up to show it
        try:
            with nothing_happens("compile", "open"):  # to trees; a syntax error looks for the line in SOURCE
                return parse(text, SOURCE)
        except PresetError as error:
            assert SOURCE in str(error)
            str(error).encode()
    return None


def _literals(values: dict[str, Any]) -> None:
    for name, value in values.items():
        name.encode()
        assert type(value) in (bool, int, float, str), f"{name} is a {type(value)}"
        if isinstance(value, str):
            value.encode()
        else:
            assert math.isfinite(value) and abs(value) <= MAX_NUMBER


def _validate(name: str, values: dict[str, Any], ranks: int) -> None:
    try:
        config = validate(STAGES[name], values, ranks)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.pointer.startswith("/"), problem
            problem.message.encode()
            storable(problem.nearest)
        return
    written = config.model_dump_json()
    storable(standard(written))
    assert STAGES[name].config.model_validate_json(written) == config
    storable_text(config.run)
