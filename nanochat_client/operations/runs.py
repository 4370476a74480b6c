"""Runs: start them, read what they do, stop them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nanochat_client import types
from nanochat_client.operations.core import JsonObject, Operation, delete, get, parser, post, segment


def create_run(
    stage: str,
    *,
    config: str | None = None,
    overrides: JsonObject | None = None,
    name: str | None = None,
    parent: str | None = None,
    checkpoint: str = "last",
    gpus: int | None = None,
    nodes: int = 1,
    min_nodes: int | None = None,
    priority: int = 0,
    max_restarts: int = 3,
    max_duration_s: float | None = None,
    tags: Sequence[str] = (),
) -> Operation[types.Run]:
    """Start a run of `stage`. `config`: a preset that ships; `overrides` win over it."""
    body = types.RunCreate(
        stage=stage,
        config=config,
        overrides=overrides or {},
        name=name,
        parent=parent,
        checkpoint=checkpoint,
        gpus=gpus,
        nodes=nodes,
        min_nodes=min_nodes,
        priority=priority,
        max_restarts=max_restarts,
        max_duration_s=max_duration_s,
        tags=list(tags),
    )
    return post("/runs", types.Run, body.model_dump(mode="json"), creates=True)


def list_runs(
    *,
    stage: str | None = None,
    state: Sequence[str] = (),
    tag: str | None = None,
    pipeline: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Operation[types.Page[types.Run]]:
    """Runs that match all filters (of several states: any), newest first."""
    return get(
        "/runs",
        types.Page[types.Run],
        stage=stage,
        state=[str(name) for name in state],
        tag=tag,
        pipeline=pipeline,
        cursor=cursor,
        limit=limit,
    )


def get_run(run_id: str) -> Operation[types.Run]:
    """The run as it is now. Raises NotFound."""
    return get(f"/runs/{segment(run_id)}", types.Run)


def patch_run(run_id: str, changes: types.RunPatch, *, version: int | None = None) -> Operation[types.Run]:
    """Change name, tags, notes or priority. With `version`: only if nobody has changed the run since."""
    fields = changes.model_dump(mode="json", exclude_unset=True)
    path = f"/runs/{segment(run_id)}"
    return Operation("PATCH", path, parser(types.Run), body=fields, headers=_unless_changed(version))


def delete_run(run_id: str, *, version: int | None = None) -> Operation[None]:
    """Remove an ended run with its logs, checkpoints and files. `version`: as for `patch_run`."""
    return delete(f"/runs/{segment(run_id)}", _unless_changed(version))


def _unless_changed(version: int | None) -> dict[str, str]:
    return {} if version is None else {"if-match": f'"{version}"'}


def cancel_run(run_id: str) -> Operation[types.Run]:
    """End the run; a running one saves a checkpoint first."""
    return post(f"/runs/{segment(run_id)}/cancel", types.Run)


def pause_run(run_id: str) -> Operation[types.Run]:
    """Save a checkpoint and wait until the run is resumed."""
    return post(f"/runs/{segment(run_id)}/pause", types.Run)


def resume_run(run_id: str) -> Operation[types.Run]:
    """Go on from the last checkpoint."""
    return post(f"/runs/{segment(run_id)}/resume", types.Run)


def retry_run(run_id: str, *, checkpoint: str = "last") -> Operation[types.Run]:
    """A new run with the settings of one that has ended, going on from `checkpoint` of it.

    `checkpoint`: last, best:<metric>, step:<n>, an id, or none (from the beginning).
    """
    body = {"checkpoint": checkpoint}
    return post(f"/runs/{segment(run_id)}/retry", types.Run, body, creates=True)


def attempts(run_id: str) -> Operation[types.Page[types.Attempt]]:
    """Every try of the run, first to last."""
    return get(f"/runs/{segment(run_id)}/attempts", types.Page[types.Attempt])


def events(
    run_id: str, *, after: int = 0, kind: Sequence[str] = (), limit: int = 100
) -> Operation[types.Page[types.Event]]:
    """What the trainer reported above sequence number `after`, oldest first."""
    path = f"/runs/{segment(run_id)}/events"
    return get(path, types.Page[types.Event], after=after, kind=list(kind), limit=limit)


def logs(
    run_id: str, *, after: int = 0, limit: int = 65536, q: str | None = None
) -> Operation[types.LogPage]:
    """The log from byte `after` on; `q` searches lines (then `limit` counts lines)."""
    return get(f"/runs/{segment(run_id)}/logs", types.LogPage, after=after, limit=limit, q=q)


def metrics(
    run_id: str,
    keys: Sequence[str] = (),
    *,
    max_points: int = 1000,
    x: Literal["step", "time", "tokens"] = "step",
    first: int | None = None,
    last: int | None = None,
) -> Operation[types.Metrics]:
    """Metric series (all without `keys`), down-sampled with minima and maxima kept.

    `first` and `last`: only points between these steps.
    """
    path, names = f"/runs/{segment(run_id)}/metrics", ",".join(keys)
    return get(path, types.Metrics, keys=names, max_points=max_points, x=x, first=first, last=last)


def samples(run_id: str, *, after: int = 0, limit: int = 100) -> Operation[types.Page[types.Sample]]:
    """Texts the model wrote while it trained, oldest first."""
    return get(f"/runs/{segment(run_id)}/samples", types.Page[types.Sample], after=after, limit=limit)


def first_batch(run_id: str) -> Operation[types.FirstBatch]:
    """What the run read first, as text, and which tokens count in the loss. Raises NotFound before."""
    return get(f"/runs/{segment(run_id)}/first_batch", types.FirstBatch)


def run_checkpoints(run_id: str) -> Operation[types.Page[types.Checkpoint]]:
    """Checkpoints of one run, oldest step first."""
    return get(f"/runs/{segment(run_id)}/checkpoints", types.Page[types.Checkpoint])


def report(run_id: str) -> Operation[types.Report]:
    """What a run and those it starts from did; of a pipeline's run, the whole pipeline."""
    return get(f"/runs/{segment(run_id)}/report", types.Report)
