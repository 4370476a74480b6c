"""Pipelines, checkpoints, evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nanochat_client import types
from nanochat_client.operations.core import JsonObject, Operation, get, nothing, parser, post, segment


def create_pipeline(
    preset: str | None = None,
    *,
    name: str | None = None,
    steps: Sequence[types.PipelineStep] = (),
    overrides: dict[str, JsonObject] | None = None,
) -> Operation[types.Pipeline]:
    """Start a shipped pipeline (`preset`) or one of `steps`; `overrides` by step name."""
    body = types.PipelineCreate(preset=preset, name=name, steps=list(steps), overrides=overrides or {})
    return post("/pipelines", types.Pipeline, body.model_dump(mode="json"), creates=True)


def list_pipelines(*, cursor: str | None = None, limit: int = 50) -> Operation[types.Page[types.Pipeline]]:
    """Pipelines, newest first."""
    return get("/pipelines", types.Page[types.Pipeline], cursor=cursor, limit=limit)


def pipeline_presets() -> Operation[types.Page[types.PipelinePreset]]:
    """The pipelines that ship, with their steps: what `create_pipeline` takes, whole or changed."""
    return get("/pipelines/presets", types.Page[types.PipelinePreset])


def get_pipeline(pipeline_id: str) -> Operation[types.Pipeline]:
    """The pipeline with its runs as they are now."""
    return get(f"/pipelines/{segment(pipeline_id)}", types.Pipeline)


def cancel_pipeline(pipeline_id: str) -> Operation[types.Pipeline]:
    """End every run of it that has not ended."""
    return post(f"/pipelines/{segment(pipeline_id)}/cancel", types.Pipeline)


def pipeline_report(pipeline_id: str) -> Operation[types.Report]:
    """What the models of a pipeline can do, side by side."""
    return get(f"/pipelines/{segment(pipeline_id)}/report", types.Report)


def list_checkpoints(
    *,
    run: str | None = None,
    stage: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Operation[types.Page[types.Checkpoint]]:
    """Checkpoints and tokenizers, newest first."""
    shape = types.Page[types.Checkpoint]
    return get("/checkpoints", shape, run=run, stage=stage, cursor=cursor, limit=limit)


def get_checkpoint(checkpoint_id: str) -> Operation[types.Checkpoint]:
    """One checkpoint. Raises NotFound."""
    return get(f"/checkpoints/{segment(checkpoint_id)}", types.Checkpoint)


def download(checkpoint_id: str) -> Operation[None]:
    """Its files as a tar archive, to be streamed: see `nanochat_client.download`."""
    path = f"/checkpoints/{segment(checkpoint_id)}/download"
    return Operation("GET", path, nothing, repeatable=True)


def start_export(
    checkpoint_id: str,
    *,
    format: Literal["hf"] = "hf",
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Operation[types.Export]:
    """Have it written for other software, in the background; asked for again, it is the same export."""
    path = f"/checkpoints/{segment(checkpoint_id)}/export"
    body = {"format": format, "dtype": dtype}
    return Operation("POST", path, parser(types.Export), body=body, repeatable=True)


def list_exports(checkpoint_id: str) -> Operation[types.Page[types.Export]]:
    """What it was written as, newest first."""
    return get(f"/checkpoints/{segment(checkpoint_id)}/exports", types.Page[types.Export])


def get_export(checkpoint_id: str, name: str) -> Operation[types.Export]:
    """One of its exports, by format and type: `hf-float32`. Raises NotFound."""
    return get(f"/checkpoints/{segment(checkpoint_id)}/exports/{segment(name)}", types.Export)


def download_export(checkpoint_id: str, name: str) -> Operation[None]:
    """An export's files as a tar archive, to be streamed."""
    path = f"/checkpoints/{segment(checkpoint_id)}/exports/{segment(name)}/download"
    return Operation("GET", path, nothing, repeatable=True)


def lineage(checkpoint_id: str) -> Operation[types.Lineage]:
    """From a checkpoint back to data, tokenizer, config and code."""
    return get(f"/checkpoints/{segment(checkpoint_id)}/lineage", types.Lineage)


def promote(checkpoint_id: str, alias: str) -> Operation[types.Checkpoint]:
    """Give a checkpoint a name of its own under `/v1/models`; a name in use moves over."""
    path = f"/checkpoints/{segment(checkpoint_id)}/promote"
    return Operation("POST", path, parser(types.Checkpoint), body={"alias": alias}, repeatable=True)


def evaluations(
    *,
    run: str | None = None,
    pipeline: str | None = None,
    checkpoint: str | None = None,
    stage: str | None = None,
    name: str | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> Operation[types.Page[types.Evaluation]]:
    """Results, newest first. `run` measured them, of `checkpoint`, which `stage` made."""
    return get(
        "/evaluations", types.Page[types.Evaluation],
        run=run, pipeline=pipeline, checkpoint=checkpoint, stage=stage, name=name, cursor=cursor, limit=limit,
    )  # fmt: skip
