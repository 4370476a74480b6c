"""From a request to a config that can run: preset, overrides, GPUs, checks, pointers into the body.

Everything wrong with a request is reported at once, each problem with a JSON pointer into the body that
was sent and the nearest valid value where there is one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.configurator import ConfigError, Preset, PresetError, find_preset, nearest_name, validate
from nanochat.hardware import Gpu
from nanochat.stages import STAGES, Stage
from nanochat_client.types import ProblemItem
from nanochat_client.types.wire import TAG
from server.problems import Invalid

A_TAG = re.compile(TAG)
MAX_TAG = 64
MAX_DEPTH = 16  # of overrides
HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Assembled:
    """Preset and overrides put together, not checked yet, and the GPUs they ask for."""

    stage: Stage
    values: dict[str, Any]
    preset: str | None
    gpus: int

    @property
    def ranks(self) -> int | None:
        """Ranks to check the config for; None: those it names itself."""
        return (self.gpus or None) if self.stage.distributed else 1


@dataclass(frozen=True)
class Resolved:
    """A config that passed every check, and what it needs."""

    stage: Stage
    config: dict[str, Any]
    preset: str | None
    gpus: int


def resolve(
    stage_name: str,
    preset_name: str | None,
    overrides: Mapping[str, Any],
    gpus: int | None,
    *,
    base: Path,
    name: str | None = None,
    offered: Sequence[Gpu] = (),
    at: str = "",
    overrides_at: str | None = None,
) -> Resolved:
    """The config for a request. Raises Invalid.

    `base`: the base directory, for its uploaded presets. `offered`: the GPUs of the best worker: a stage
    that can use one gets one, and `auto` is planned for them. `at`: where in the body the request stands
    (pipeline steps); `overrides_at`: where its overrides stand, if elsewhere.
    """
    overrides_at = f"{at}/overrides" if overrides_at is None else overrides_at
    got = assemble(
        stage_name, preset_name, overrides, gpus,
        base=base, offered=offered, at=at, overrides_at=overrides_at,
    )  # fmt: skip
    if name and "run" not in overrides:
        got.values["run"] = name
    try:
        config = validate(got.stage, got.values, got.ranks)
    except ConfigError as error:
        raise invalid(problem_items(error, overrides_at)) from None
    return Resolved(got.stage, config.model_dump(mode="json"), preset_name, got.gpus)


def assemble(
    stage_name: str,
    preset_name: str | None,
    overrides: Mapping[str, Any],
    gpus: int | None,
    *,
    base: Path,
    offered: Sequence[Gpu],
    at: str,
    overrides_at: str,
) -> Assembled:
    """What `resolve` checks. Raises Invalid: `unknown_stage`, `unknown_preset`, `invalid_preset` …"""
    stage = known_stage(stage_name, f"{at}/stage")
    on_cpu = overrides.get("device") == "cpu" or not stage.uses_gpu
    preset = _preset(stage, preset_name, f"{at}/config", () if on_cpu else offered[:gpus], base)
    if problems := _unstorable(overrides, overrides_at):
        raise invalid(problems)
    values = {**(preset.values if preset else {}), **overrides}
    count = _gpus(stage, preset, overrides, gpus, bool(offered), f"{at}/gpus", overrides_at)
    if count and values.get("device") == "cpu":
        values["device"] = "auto"  # the preset's; GPUs were asked for explicitly
    return Assembled(stage, values, preset_name, count)


def problem_items(error: ConfigError, overrides_at: str) -> list[ProblemItem]:
    """Problems of a config as problems of the body that gave it."""
    return [
        ProblemItem(pointer=overrides_at + p.pointer, message=p.message, nearest=p.nearest)
        for p in error.problems
    ]


def invalid(problems: list[ProblemItem], code: str = "invalid_config") -> Invalid:
    return Invalid("; ".join(problem.message for problem in problems), code=code, errors=problems)


def known_stage(name: str, pointer: str = "/stage") -> Stage:
    """The stage of that name. Raises Invalid with the nearest one."""
    if name in STAGES:
        return STAGES[name]
    nearest = nearest_name(name, STAGES)
    hint = f"the nearest is {nearest!r}" if nearest else f"there are {', '.join(STAGES)}"
    message = f"there is no stage {name!r}; {hint}"
    raise invalid([ProblemItem(pointer=pointer, message=message, nearest=nearest)], "unknown_stage")


def check_tags(tags: list[str]) -> None:
    """Tags are short words without control and format characters. Raises Invalid."""
    problems = [
        ProblemItem(pointer=f"/tags/{i}", message=f"a tag has 1 to {MAX_TAG} printable characters")
        for i, tag in enumerate(tags)
        if not A_TAG.fullmatch(tag) or HALF.search(tag)
    ]
    if problems:
        raise invalid(problems, "invalid")


def check_text(text: str, pointer: str) -> None:
    """Text that every database can hold. Raises Invalid."""
    if problems := _unstorable(text, pointer):
        raise invalid(problems, "invalid")


def _preset(stage: Stage, name: str | None, pointer: str, gpus: Sequence[Gpu], base: Path) -> Preset | None:
    if name is None:
        return None
    try:
        preset = find_preset(name, gpus, base)
    except ConfigError as error:
        problems = [
            ProblemItem(pointer=pointer, message=p.message, nearest=p.nearest) for p in error.problems
        ]
        raise invalid(problems, "unknown_preset") from None
    except PresetError as error:
        raise invalid([ProblemItem(pointer=pointer, message=str(error))], "invalid_preset") from None
    if unknown := sorted(preset.values.keys() - stage.config.model_fields.keys()):
        fits = ", ".join(preset.stages()) or "no stage"
        message = (
            f"preset {name!r} sets {', '.join(unknown)}, which {stage.name!r} does not know; it fits {fits}"
        )
        raise invalid([ProblemItem(pointer=pointer, message=message)])
    return preset


def _gpus(
    stage: Stage,
    preset: Preset | None,
    overrides: Mapping[str, Any],
    asked: int | None,
    offered: bool,
    pointer: str,
    overrides_at: str,
) -> int:
    """GPUs the run takes: what was asked, else what device and preset imply, else one if there is one."""
    device = overrides.get("device")
    if asked is None:
        if device == "cpu" or not stage.uses_gpu:
            return 0
        implied = preset.gpus if preset and preset.gpus is not None else int(offered)
        return max(1, implied) if device == "cuda" else implied
    limit = 0 if not stage.uses_gpu else None if stage.distributed else 1
    if limit is not None and asked > limit:
        message = f"stage {stage.name!r} uses {limit or 'no'} GPU{'s'[: limit != 1]}, not {asked}"
        raise invalid([ProblemItem(pointer=pointer, message=message, nearest=limit)])
    if device == "cpu" and asked > 0:
        message = f"device is 'cpu' but gpus is {asked}: leave one of them out"
        raise invalid([ProblemItem(pointer=pointer, message=message, nearest=0)])
    if device == "cuda" and asked == 0:
        message = "device is 'cuda' but gpus is 0: leave one of them out"
        raise invalid([ProblemItem(pointer=f"{overrides_at}/device", message=message, nearest="cpu")])
    return asked


def _unstorable(value: Any, pointer: str, depth: int = 0) -> list[ProblemItem]:
    """Values inside `value` that JSON or a database cannot hold: NaN, infinity, NUL, half a character."""
    if isinstance(value, float) and not math.isfinite(value):
        return [ProblemItem(pointer=pointer, message="NaN and infinity are no numbers to train with")]
    if isinstance(value, str):
        if "\0" in value:
            return [ProblemItem(pointer=pointer, message="text must not hold a NUL character")]
        if HALF.search(value):
            return [ProblemItem(pointer=pointer, message="text must not hold half a character (a surrogate)")]
    if isinstance(value, Mapping | list) and depth == MAX_DEPTH:
        return [ProblemItem(pointer=pointer, message=f"nested deeper than {MAX_DEPTH} levels")]
    found: list[ProblemItem] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            found += _unstorable(key, pointer) or _unstorable(item, f"{pointer}/{key}", depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            found += _unstorable(item, f"{pointer}/{number}", depth + 1)
    return found
