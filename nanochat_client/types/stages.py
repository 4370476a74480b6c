"""Stages and presets that ship."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from nanochat_client.types.problems import ProblemItem
from nanochat_client.types.wire import Wire


class StageView(Wire):
    name: str
    title: str
    config_schema: dict[str, Any]
    """JSON schema of the stage's config."""
    inputs: list[dict[str, JsonValue]]
    presets: list[str]
    uses_gpu: bool


class ConfigView(Wire):
    name: str
    path: str
    """Below the checkout; empty: `auto`, which is planned for the GPUs there are."""
    stages: list[str]
    gpus: int | None = None
    values: dict[str, JsonValue]
    resolved: dict[str, JsonValue] | None = None
    problems: list[ProblemItem] = []
