"""Pipelines: chains and graphs of stages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, JsonValue

from nanochat_client.types.runs import Run, RunState, Selector
from nanochat_client.types.wire import NUMBER, Flag, Gpus, Name, Request, Whole, Wire


class PipelineStep(Request):
    name: str = Field(pattern=Name)
    stage: str
    config: str | None = None
    overrides: dict[str, JsonValue] = {}
    parent: str | None = None
    """Name of an earlier step; absent: the step before this one."""
    checkpoint: Selector = "last"
    gpus: Gpus | None = None
    nodes: Whole = Field(default=1, ge=1, le=64)
    """Workers that the step's run spreads over, all of them or none; `gpus` is the sum."""
    min_nodes: Annotated[int, Field(ge=1, le=64), NUMBER] | None = None
    """Once it has run, it may go on with so few when others are lost; absent: never fewer than `nodes`."""
    optional: Flag = False
    """The pipeline succeeds also when this step fails, e.g. an evaluation whose data is not here."""


class PipelineCreate(Request):
    preset: str | None = None
    """Name of a shipped pipeline, e.g. demo; or give `steps`."""
    name: str | None = Field(default=None, pattern=Name)
    steps: list[PipelineStep] = Field(default=[], max_length=64)
    overrides: dict[str, dict[str, JsonValue]] = {}
    """By step name: config fields that win over the step's own."""


class PipelinePreset(Wire):
    name: str
    """What POST /pipelines takes as `preset`."""
    steps: list[PipelineStep]


class Pipeline(Wire):
    id: str
    name: str
    state: RunState
    """Of the whole: failed if a run failed that is not optional, succeeded if all others did, else the state
    of the active run."""
    runs: list[Run]
    model: str | None = None
    """Name under /v1/models of what the pipeline made, once it succeeded."""
    created_at: datetime
