"""Stage configs from preset files, JSON and command lines.

A preset looks like Python and is **parsed, never executed**: assignments of literals to names, with
bounded arithmetic on numbers (`eval_tokens = 1 * 110592`). Anything else is an error that names its
line. Precedence: defaults < preset < overrides (flags or JSON).

Not covered: presets that import or compute from other presets; conditionals; anything not a literal.
"""

from __future__ import annotations

import ast
import difflib
import json
import operator
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from nanochat.files import ROOT as UPLOADS
from nanochat.files import SUFFIXES
from nanochat.hardware import Gpu
from nanochat.paths import base_dir, repo_dir
from nanochat.stages import STAGES, Problem, Stage, StageConfig

AUTO = "auto"  # the preset without a file: its values are planned for the GPUs at hand
MAX_PRESET_BYTES = 64 * 1024
MAX_NUMBER = 10**30
_SURROGATE = re.compile("[\ud800-\udfff]")
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


class PresetError(ValueError):
    """A preset file that cannot be read; the text names file and line."""


class ConfigError(ValueError):
    """A config that cannot run; `problems` says where and what would be valid."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


@dataclass(frozen=True)
class Preset:
    """Values a preset sets. `gpus`: what it implies (2 for dual-GPU ones, 0 for CPU ones).

    `path`: its file; None: `auto`, which has none.
    """

    name: str
    path: Path | None
    values: Mapping[str, Any]
    gpus: int | None

    def stages(self) -> list[str]:
        """Stages that know every key of this preset."""
        return [
            name for name, stage in STAGES.items() if self.values.keys() <= stage.config.model_fields.keys()
        ]


# ---------------------------------------------------------------- presets


def parse_preset(text: str, source: str = "<preset>") -> dict[str, Any]:
    """Values assigned in `text`. `None` means: keep the default. Raises PresetError."""
    _small(text, source)
    try:
        tree = ast.parse(text, filename=source)
    except SyntaxError as error:
        raise PresetError(f"{source}, line {error.lineno}: {error.msg}") from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise PresetError(f"{source}: cannot be parsed ({type(error).__name__})") from None
    values: dict[str, Any] = {}
    for position, statement in enumerate(tree.body):
        match statement:
            case ast.Expr(value=ast.Constant(value=str())) if position == 0:
                continue  # a docstring
            case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression):
                pass
            case _:
                raise PresetError(
                    f"{source}, line {statement.lineno}: only `name = literal` is allowed in a preset"
                )
        if name in values:
            raise PresetError(f"{source}, line {statement.lineno}: {name!r} is assigned twice")
        values[name] = _literal(expression, source, depth=0)
    return {name: value for name, value in values.items() if value is not None}


def preset_parser(path: Path) -> Callable[[str, str], dict[str, Any]]:
    """What reads a preset file of that name."""
    return parse_json_preset if path.suffix == ".json" else parse_preset


def _small(text: str, source: str) -> None:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_PRESET_BYTES:
        raise PresetError(f"{source}: larger than {MAX_PRESET_BYTES} bytes, which no preset is")


def parse_json_preset(text: str, source: str = "<preset>") -> dict[str, Any]:
    """The members of the one JSON object in `text`. Raises PresetError, also for what standard JSON lacks."""
    _small(text, source)
    try:
        values = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise PresetError(f"{source}: {error}") from None
    if not isinstance(values, dict):
        raise PresetError(f"{source}: must hold one JSON object")
    for name, value in values.items():
        _bounded(name, source)
        _bounded(value, f"{source}, {name!r}")
    return values


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is assigned twice")
        found[name] = value
    return found


def _literal(node: ast.expr, source: str, depth: int) -> Any:
    where = f"{source}, line {node.lineno}"
    if depth > 16:
        raise PresetError(f"{where}: nested too deeply")
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return _bounded(value, where)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _number(_literal(operand, source, depth + 1), where)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            a = _number(_literal(left, source, depth + 1), where)
            b = _number(_literal(right, source, depth + 1), where)
            if isinstance(op, ast.Pow) and (abs(b) > 64 or abs(a) > 1_000_000):
                raise PresetError(f"{where}: that power is out of bounds")
            try:
                return _bounded(_ARITHMETIC[type(op)](a, b), where)
            except (ZeroDivisionError, OverflowError):
                raise PresetError(f"{where}: that arithmetic has no finite result") from None
        case _:
            raise PresetError(f"{where}: only numbers, strings, True, False, None and arithmetic on numbers")


def _number(value: Any, where: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PresetError(f"{where}: arithmetic needs numbers, got {value!r}")
    return value


def _bounded(value: Any, where: str) -> Any:
    if isinstance(value, complex):
        raise PresetError(f"{where}: that arithmetic has no real result")
    if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # also refuses NaN
        raise PresetError(f"{where}: a number beyond {MAX_NUMBER:.0e}")
    if isinstance(value, str) and _SURROGATE.search(value):
        raise PresetError(f"{where}: half a character (a lone surrogate), which no file can hold")
    if isinstance(value, str) and "\0" in value:
        raise PresetError(f"{where}: a NUL character, which no argument of a program can hold")
    return value


def preset_files(base: Path | None = None) -> dict[str, Path]:
    """Names of presets, and their files: those that ship, and those uploaded to the base directory `base`.

    A name that ships is never another's.
    """
    root = repo_dir()
    files = [*sorted((root / "configs").glob("*.py")), *sorted((root / "configs").glob("*/*.py"))]
    files += [root / "config_dual_gpu.py"]
    place = base / UPLOADS / "preset" if base else None
    own = (
        [file for ending in SUFFIXES["preset"] for file in sorted(place.glob(f"*{ending}"))] if place else []
    )
    return {file.stem: file for file in [*own, *files] if file.is_file() and file.stem != "__init__"}


def load_preset(path: Path) -> Preset:
    """Read one preset file (.py as described above, or .json). Raises PresetError, FileNotFoundError."""
    if path.stat().st_size > MAX_PRESET_BYTES:
        raise PresetError(f"{path}: larger than {MAX_PRESET_BYTES} bytes, which no preset is")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise PresetError(f"{path}: not UTF-8 text") from None
    values = preset_parser(path)(text, str(path))
    dual = path.parent.name == "dual_gpu" or path.stem == "config_dual_gpu"
    gpus = 2 if dual else 0 if values.get("device") == "cpu" else None
    return Preset(path.stem, path, values, gpus)


def preset_names(base: Path | None = None) -> list[str]:
    """Every name that `find_preset` knows."""
    return [*preset_files(base), AUTO]


def automatic_preset(gpus: Sequence[Gpu]) -> Preset:
    """`auto`: the planner's values for these GPUs, or for a CPU when there are none."""
    from nanochat.planner import automatic

    values = automatic(gpus)
    return Preset(AUTO, None, values, 0 if values.get("device") == "cpu" else len(gpus))


def find_preset(name: str, gpus: Sequence[Gpu] | None = None, base: Path | None = None) -> Preset:
    """A preset by its name. Raises ConfigError with the nearest known name.

    `gpus`: what `auto` is planned for; None: those this process sees, one for each of its ranks. `base`: a
    base directory, whose uploaded presets count as well.
    """
    files = preset_files(base)
    if name == AUTO:
        return automatic_preset(_own_gpus() if gpus is None else gpus)
    if name not in files:
        nearest = nearest_name(name, preset_names(base))
        hint = f"; the nearest is {nearest!r}" if nearest else f"; there are {', '.join(preset_names(base))}"
        raise ConfigError([Problem("/config", f"there is no preset {name!r}{hint}", nearest)])
    return load_preset(files[name])


def _own_gpus() -> list[Gpu]:
    from nanochat.planner.host import host_gpus

    return host_gpus()[: int(os.environ.get("WORLD_SIZE", "1"))]


def find_preset_or_file(name: str) -> Preset:
    """A preset file by path, else a preset by name: a shipped one, or one uploaded to the base directory."""
    path = Path(name)
    return load_preset(path) if path.is_file() else find_preset(name, base=base_dir())


def nearest_name(name: str, known: Mapping[str, Any] | Sequence[str]) -> str | None:
    """The known name closest to `name`, if any is close."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


# ---------------------------------------------------------------- validation


def validate(stage: Stage, values: Mapping[str, Any], world_size: int | None = None) -> StageConfig:
    """The stage's config for `values`. Raises ConfigError.

    `world_size`: ranks for the relational checks; None takes the config's own `processes`.
    """
    config = parse(stage, values)
    if problems := config.problems(config.processes if world_size is None else world_size):
        raise ConfigError(problems)
    return config


def parse(stage: Stage, values: Mapping[str, Any]) -> StageConfig:
    """The stage's config for `values`, each field checked by itself. Raises ConfigError."""
    try:
        return stage.config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError([_problem(stage, item) for item in error.errors()]) from None


def _problem(stage: Stage, error: Any) -> Problem:
    pointer = "".join(f"/{part}" for part in error["loc"])
    name = str(error["loc"][0]) if error["loc"] else ""
    if error["type"] == "extra_forbidden":
        nearest = nearest_name(name, stage.config.model_fields)
        hint = f"; the nearest known key is {nearest!r}" if nearest else ""
        return Problem(pointer, f"stage {stage.name!r} has no key {name!r}{hint}", nearest)
    context = error.get("ctx", {})
    nearest = next((context[bound] for bound in ("ge", "le") if bound in context), None)
    message = f"{name}: {error['msg'][:1].lower()}{error['msg'][1:]}, got {error['input']!r}"
    if nearest is not None:
        message += f"; the nearest valid value is {nearest}"
    return Problem(pointer, message[:500], nearest)


# ---------------------------------------------------------------- command line


def config_from_argv(stage: Stage, argv: Sequence[str], environ: Mapping[str, str] | None = None) -> Any:
    """The stage's config from a command line; the type is `stage.config`.

    `--key=value`, `--key value`, dashes or underscores; a first positional argument or `--config` is a
    preset (file or name). A bare `--flag` of a boolean sets it. Exits 2 with one sentence on bad input,
    0 after `--help`.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    flags: dict[str, Any] = {}
    try:
        for key, value in _pairs(stage, argv):
            if key == "config":
                values.update(find_preset_or_file(str(value)).values)
            else:
                flags[key] = value
        values.update(flags)
        return validate(stage, values, int(environ.get("WORLD_SIZE", "1")))
    except (ConfigError, PresetError) as error:
        _exit_usage(stage, str(error))


def _pairs(stage: Stage, argv: Sequence[str]) -> Iterator[tuple[str, Any]]:
    rest = list(argv)
    seen_positional = False
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            print(help_text(stage))
            raise SystemExit(0)
        if not word.startswith("-"):
            if seen_positional:
                _exit_usage(stage, f"unexpected argument {word!r}: only one positional argument is taken")
            seen_positional = True
            yield stage.positional, word
            continue
        flag, has_value, text = word.partition("=")
        key = stage.aliases.get(flag, flag.lstrip("-").replace("-", "_"))
        field = stage.config.model_fields.get(key)
        if field is None and key != "config":
            nearest = nearest_name(key, [*stage.config.model_fields, "config"])
            hint = f"; the nearest known one is --{nearest}" if nearest else ""
            _exit_usage(stage, f"unknown flag {flag}{hint}")
        if not has_value:
            if field is not None and field.annotation is bool and (not rest or rest[0].startswith("--")):
                text = "True"
            elif rest:
                text = rest.pop(0)
            else:
                _exit_usage(stage, f"{flag} needs a value")
        yield key, text if field is None else from_text(text, field.annotation)


def from_text(text: str, annotation: Any) -> Any:
    """A flag's text as the value its field wants; text that is no literal stays text."""
    if annotation is str:
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
    if annotation is int and isinstance(value, float) and value.is_integer():
        return int(value)  # --max_chars=1e9
    return value


def help_text(stage: Stage) -> str:
    """What `--help` prints: every field with its default and meaning."""
    module = stage.script
    lines = [f"{stage.title}: python -m {module} [{stage.positional.upper()}] [--key=value …]", ""]
    if stage.config.__doc__:
        lines += [stage.config.__doc__.strip().splitlines()[0], ""]
    for name, field in stage.config.model_fields.items():
        kind = getattr(field.annotation, "__name__", None) or str(field.annotation)
        kind = kind.replace("typing.", "")
        lines.append(f"  --{name}={field.get_default()!r}  ({kind})")
        lines.append(f"      {field.description or ''}")
    lines.append("  --config=PRESET\n      A preset file or the name of a shipped preset; flags win over it.")
    return "\n".join(lines)


def _exit_usage(stage: Stage, message: str) -> NoReturn:
    print(f"{stage.script.rpartition('.')[2]}: {message}", file=sys.stderr)
    raise SystemExit(2)


class Configurator(Mapping[str, Any]):
    """A validated preset as attributes and as a mapping: `Configurator("stable_26gb").depth`.

    Raises PresetError and ConfigError. Relational checks use WORLD_SIZE ranks (1 when it is not set).
    """

    def __init__(self, path_or_name: str | Path, stage: str = "base", **overrides: Any) -> None:
        preset = find_preset_or_file(str(path_or_name))
        world_size = int(os.environ.get("WORLD_SIZE", "1"))
        self.config = validate(STAGES[stage], {**preset.values, **overrides}, world_size)

    def __getattr__(self, name: str) -> Any:
        if name == "config":  # not set yet: __init__ raised
            raise AttributeError(name)
        return getattr(self.config, name)

    def __getitem__(self, name: str) -> Any:
        if name not in type(self.config).model_fields:
            raise KeyError(name)
        return getattr(self.config, name)

    def __iter__(self) -> Iterator[str]:
        return iter(type(self.config).model_fields)

    def __len__(self) -> int:
        return len(type(self.config).model_fields)
