"""Pipelines that ship: `configs/pipelines/<name>.json`, each a `PipelineCreate` with `steps`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from nanochat.configurator import nearest_name
from nanochat.paths import repo_dir
from nanochat_client.types import PipelineCreate, ProblemItem
from server.runs.resolve import invalid


def files() -> dict[str, Path]:
    """Names of the shipped pipelines, and their files."""
    return {path.stem: path for path in sorted((repo_dir() / "configs" / "pipelines").glob("*.json"))}


def find(name: str) -> PipelineCreate:
    """The shipped pipeline of that name. Raises Invalid with the nearest one."""
    known = files()
    if name not in known:
        nearest = nearest_name(name, known)
        hint = f"the nearest is {nearest!r}" if nearest else f"there are {', '.join(known) or 'none'}"
        message = f"there is no pipeline preset {name!r}; {hint}"
        raise invalid([ProblemItem(pointer="/preset", message=message, nearest=nearest)], "unknown_preset")
    try:
        return PipelineCreate.model_validate_json(known[name].read_bytes())
    except ValidationError as error:
        message = f"{known[name].name}: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}"
        raise invalid([ProblemItem(pointer="/preset", message=message)], "invalid_preset") from None
