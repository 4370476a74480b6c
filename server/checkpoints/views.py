"""Checkpoints as the API shows them."""

from __future__ import annotations

from server.models import Checkpoint, Run


def model_name(run: Run, checkpoint: Checkpoint) -> str:
    """Name under /v1/models."""
    return f"{run.name}:{checkpoint.stage}:{checkpoint.step}".replace(" ", "-")
