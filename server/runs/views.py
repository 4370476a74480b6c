"""Rows as the API shows them."""

from __future__ import annotations

from nanochat_client import types
from server.models import Attempt, Run


def run_view(run: Run) -> types.Run:
    return types.Run(
        id=run.id,
        stage=run.stage,
        name=run.name,
        state=types.RunState(run.state),
        desired=types.Desired(run.desired),
        reason=types.Reason(run.reason) if run.reason else None,
        message=run.message,
        config=run.config,
        preset=run.preset,
        parent=run.parent_id,
        pipeline=run.pipeline_id,
        retry_of=run.retry_of,
        optional=run.optional,
        gpus=run.gpus,
        nodes=run.nodes,
        blocked=types.Blocked.model_validate(run.blocked) if run.blocked else None,
        attempt=run.attempt,
        exit_code=run.exit_code,
        signal=run.signal,
        peak_bytes=run.peak_bytes,
        step=run.step,
        steps=run.steps,
        summary={key: value for key, value in run.summary.items() if value is not None},
        tags=run.tags,
        notes=run.notes,
        priority=run.priority,
        max_restarts=run.max_restarts,
        restarts_left=run.restarts_left,
        max_duration_s=run.max_duration_s,
        created_at=run.created_at,
        started_at=run.started_at,
        ended_at=run.ended_at,
        version=run.version,
    )


def attempt_view(attempt: Attempt) -> types.Attempt:
    return types.Attempt(
        number=attempt.number,
        state=types.RunState(attempt.state),
        worker=attempt.worker_id,
        fence=attempt.fence,
        gpus=attempt.gpus,
        nodes=attempt.nodes,
        seconds=attempt.seconds,
        renewed_at=attempt.beat_at,
        reason=types.Reason(attempt.reason) if attempt.reason else None,
        exit_code=attempt.exit_code,
        signal=attempt.signal,
        peak_bytes=attempt.peak_bytes,
        message=attempt.message,
        tail=attempt.tail,
        created_at=attempt.created_at,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
    )
