"""Checkpoints as the API shows them."""

from __future__ import annotations

from nanochat_client import types
from server.models import Checkpoint, Run


def model_name(run: Run, checkpoint: Checkpoint) -> str:
    """Name under /v1/models."""
    return f"{run.name}:{checkpoint.stage}:{checkpoint.step}".replace(" ", "-")


def checkpoint_view(run: Run, checkpoint: Checkpoint) -> types.Checkpoint:
    """The wire form of a checkpoint row."""
    return types.Checkpoint(
        id=checkpoint.id,
        run_id=checkpoint.run_id,
        stage=checkpoint.stage,
        step=checkpoint.step,
        metrics=checkpoint.metrics,
        bytes=checkpoint.bytes,
        sha256=checkpoint.sha256,
        model=model_name(run, checkpoint) if checkpoint.model_config_ is not None else None,
        path=checkpoint.path,
        created_at=checkpoint.created_at,
    )
