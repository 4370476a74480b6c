"""Checkpoints, their names, and where they come from."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, JsonValue, field_validator

from nanochat_client.types.wire import Request, Wire


class Checkpoint(Wire):
    id: str
    run_id: str
    stage: str
    step: int
    metrics: dict[str, float] = {}
    bytes: int
    sha256: str
    model: str | None = None
    """Name under /v1/models; null for artefacts that are no language model."""
    path: str
    """Below the base directory."""
    created_at: datetime


class Promotion(Request):
    alias: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", json_schema_extra={"not": {"const": "latest"}}
    )
    """Letters, digits, dot, dash and underscore; not `latest`, which is always the newest."""

    @field_validator("alias")
    @classmethod
    def _not_latest(cls, alias: str) -> str:
        if alias == "latest":
            raise ValueError("latest is always the newest model: choose another name")
        return alias


class ExportCreate(Request):
    format: Literal["hf"] = "hf"
    """hf: a directory that transformers loads."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights."""


class Export(Wire):
    """A checkpoint written for other software, on the host of the service."""

    checkpoint: str
    name: str
    """Format and type, e.g. `hf-float32`: the last part of its address."""
    format: str
    dtype: str
    state: Literal["running", "ready", "failed"]
    message: str = ""
    """Why it failed, or what it waits for."""
    files: list[str] = []
    """Their names, once it is ready."""
    bytes: int = 0
    """Of all files."""
    version: str | None = None
    """Another one when it was made anew; the ETag of its download."""
    created_at: datetime
    """When it was ready; before, when it was asked for."""


class Artefact(Wire):
    """A checkpoint or tokenizer that another one was made from."""

    path: str
    """Below the base directory."""
    sha256: str
    """Of its manifest."""
    checkpoint: str | None = None
    """Its id; null when the service does not know it."""


class LineageStep(Wire):
    """One artefact on the way back, as it says itself where it comes from."""

    checkpoint: str
    run_id: str
    run_name: str
    stage: str
    step: int
    path: str
    sha256: str
    preset: str | None = None
    config: dict[str, JsonValue] = {}
    """Of its run, resolved."""
    data: dict[str, JsonValue] | None = None
    """What it learned from: a corpus with its size and fingerprint, or tasks."""
    code: dict[str, JsonValue] | None = None
    """Version, commit, and whether the checkout had changes."""
    tokenizer: Artefact | None = None
    parent: Artefact | None = None
    created_at: datetime


class Lineage(Wire):
    checkpoint: str
    steps: list[LineageStep]
    """The checkpoint itself first, then its parents, the tokenizer last."""
    missing: Artefact | None = None
    """Where the way back ends at something the service does not know."""
    complete: bool
    """Every step says its data and code, and the way leads to a tokenizer."""
