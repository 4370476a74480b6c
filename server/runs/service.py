"""Making runs, and what a user can ask of one. Services flush; the commit is at the edge."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.stages import STAGES
from nanochat_client.types import Blocked, Desired, PipelineStep, ProblemItem, RunCreate, RunState
from server.attempts import repository as attempts
from server.attempts.inputs import filled, fitting
from server.files import uses as uploads
from server.ids import is_id, new_id
from server.models import Run
from server.problems import Conflict, Invalid
from server.runs import repository, restart
from server.runs.resolve import Resolved, check_tags, invalid, resolve
from server.runs.states import CANCELLED, FAILED, LIVE, LOST, PAUSED, QUEUED, SUCCEEDED, TERMINAL, WAITING
from server.webhooks import outbox
from server.workers import repository as workers
from server.workers.placement import place, place_nodes

#: entity tags as RFC 9110 has them, or the number of a version
_TAG = r'((W/)?"[\x21\x23-\x7e]*"|[0-9]{1,18})'
IF_MATCH = rf"^(\*|{_TAG}( *, *{_TAG})*)$"
_IF_MATCH = re.compile(IF_MATCH)


async def create(session: AsyncSession, body: RunCreate, run_id: str, base: Path) -> Run:
    """Store a run that can run: `queued`, or `waiting` for its parent. Raises Invalid: nothing is stored.

    `base`: the base directory, for what was uploaded to it.
    """
    check_tags(body.tags)
    restart.check_selector(body.checkpoint, "/checkpoint")
    resolved = resolve(
        body.stage, body.config, body.overrides, body.gpus,
        base=base, name=body.name, offered=await workers.best_gpus(session),
    )  # fmt: skip
    if problems := await uploads.missing(session, resolved.config, base, "/overrides"):
        raise invalid(problems, "missing_file")
    parent = await parent_of(session, body.stage, body.parent, body.checkpoint)
    run = new_run(
        resolved,
        run_id,
        name=body.name or str(resolved.config["run"]) or body.stage,
        parent=parent,
        checkpoint=body.checkpoint,
        max_restarts=body.max_restarts,
        max_duration_s=body.max_duration_s,
        priority=body.priority,
        tags=body.tags,
    )
    run.nodes, run.min_nodes = nodes_of(body, resolved)
    await add(session, run)
    return run


def nodes_of(asked: RunCreate | PipelineStep, resolved: Resolved, at: str = "") -> tuple[int, int]:
    """Workers to spread over, and how few are enough later. Raises Invalid when the run cannot be divided by
    so many; `at`: where in the body it was asked for."""
    nodes = _nodes(asked.nodes, resolved, f"{at}/nodes")
    return nodes, min(asked.min_nodes or nodes, nodes)


def _nodes(asked: int, resolved: Resolved, pointer: str) -> int:
    if asked == 1:
        return 1
    ranks = resolved.gpus or int(resolved.config.get("processes", 1))
    if not resolved.stage.distributed:
        message, nearest = f"stage {resolved.stage.name!r} runs on one node", 1
    elif ranks % asked:
        what = "gpus" if resolved.gpus else "processes"
        nearest = max(n for n in range(1, asked) if ranks % n == 0)
        message = f"{what} = {ranks} cannot be divided among {asked} nodes"
    else:
        return asked
    raise invalid([ProblemItem(pointer=pointer, message=message, nearest=nearest)], "invalid")


def new_run(
    resolved: Resolved,
    run_id: str,
    *,
    name: str,
    parent: Run | None,
    checkpoint: str = "last",
    max_restarts: int = 3,
    max_duration_s: float | None = None,
    priority: int = 0,
    tags: list[str] | None = None,
) -> Run:
    """A row for `resolved`, not yet in the session."""
    waits = parent is not None and parent.state != SUCCEEDED
    return Run(
        id=run_id,
        stage=resolved.stage.name,
        name=name,
        state=WAITING if waits else QUEUED,
        desired=Desired.RUN,
        config=resolved.config,
        preset=resolved.preset,
        parent_id=parent.id if parent else None,
        parent_checkpoint=checkpoint,
        gpus=resolved.gpus,
        max_restarts=max_restarts,
        restarts_left=max_restarts,
        max_duration_s=max_duration_s,
        priority=priority,
        tags=tags or [],
    )


async def add(session: AsyncSession, run: Run) -> None:
    """Store a new row, say why it does not start, and tell the webhooks."""
    session.add(run)
    await session.flush()
    await say_blocked(session, run)
    await outbox.run_moved(session, run)


async def say_blocked(session: AsyncSession, run: Run) -> None:
    """Write on a queued run why it does not start, as far as that is known now."""
    if run.state != QUEUED:
        return
    offers = await workers.offers(session)
    blocked = place(run, offers) if (run.nodes or 1) == 1 else place_nodes(run, offers)
    if not isinstance(blocked, Blocked) or blocked.code == "no_free_slot":
        inputs = await filled(session, run)
        blocked = inputs if isinstance(inputs, Blocked) else blocked
    run.blocked = blocked.model_dump(mode="json") if isinstance(blocked, Blocked) else None
    await session.flush()


async def parent_of(session: AsyncSession, stage: str, parent_id: str | None, checkpoint: str) -> Run | None:
    """The run that a run of `stage` would start from. Raises Invalid for one that it cannot."""
    if parent_id is None:
        if checkpoint != "last":
            message = f"checkpoint {checkpoint!r} needs a parent run to select from"
            raise invalid([ProblemItem(pointer="/checkpoint", message=message, nearest="last")], "invalid")
        return None
    problem = None
    parent = await session.get(Run, parent_id) if is_id(parent_id) else None
    if parent is None:
        problem = f"there is no run {parent_id!r}: GET /runs lists them"
    elif fitting(stage, parent.stage) is None:
        takes = " or ".join(s for item in STAGES[stage].inputs for s in item.stages) or "nothing"
        problem = f"stage {stage!r} starts from {takes}, but run {parent.id} is of stage {parent.stage!r}"
    elif parent.state in (FAILED, CANCELLED):
        problem = f"run {parent.id} is {parent.state} and will make no checkpoint: retry it, or name another"
    if problem:
        raise invalid([ProblemItem(pointer="/parent", message=problem)], "invalid_parent")
    return parent


# ---------------------------------------------------------------- what a user can ask of a run


async def cancel(session: AsyncSession, run: Run) -> None:
    """End the run: at once when nobody holds it, else its worker is told. Raises Conflict."""
    _refuse(run, "cancel", run.state in TERMINAL)
    await _want(session, run, Desired.CANCEL, CANCELLED)


async def pause(session: AsyncSession, run: Run) -> None:
    """Keep the run from going on, after saving a checkpoint when it runs. Raises Conflict."""
    _refuse(run, "pause", run.state in TERMINAL or run.desired == Desired.CANCEL)
    await _want(session, run, Desired.PAUSE, PAUSED)


async def resume(session: AsyncSession, run: Run) -> None:
    """Let a paused run go on from its last checkpoint. Raises Conflict."""
    pausing = run.state in (*LIVE, LOST) and run.desired == Desired.PAUSE
    _refuse(run, "resume", not (run.state == PAUSED or pausing))
    if run.state == PAUSED:
        await repository.move(session, run.id, QUEUED, desired=Desired.RUN, reason=None, message=None)
        await say_blocked(session, run)
    else:
        run.desired, run.version = Desired.RUN, run.version + 1


async def retry(session: AsyncSession, old: Run, run_id: str, checkpoint: str = "last") -> Run:
    """A new run like `old`, going on from `checkpoint` of it. Raises Conflict, and Invalid without one."""
    _refuse(old, "retry", old.state not in (FAILED, CANCELLED))
    config = await restart.config(session, old, checkpoint)
    parent = await session.get(Run, old.parent_id) if old.parent_id else None
    if parent is not None and parent.state in (FAILED, CANCELLED):
        raise Conflict(f"its parent {parent.id} is {parent.state}: retry that first", code="parent_failed")
    resolved = Resolved(STAGES[old.stage], config, old.preset, old.gpus)
    run = new_run(
        resolved,
        run_id,
        name=old.name,
        parent=parent,
        checkpoint=old.parent_checkpoint,
        max_restarts=old.max_restarts,
        max_duration_s=old.max_duration_s,
        priority=old.priority,
        tags=list(old.tags),
    )
    run.retry_of, run.nodes, run.min_nodes = old.id, old.nodes, old.min_nodes
    await add(session, run)
    return run


async def delete(session: AsyncSession, run: Run) -> None:
    """Remove an ended run's rows; its files are the caller's. Raises Conflict."""
    _refuse(run, "delete", run.state not in TERMINAL)
    for child in await repository.children(session, run.id):
        if child.state not in TERMINAL:
            raise Conflict(f"run {child.id} starts from this one: cancel that first", code="has_children")
        child.parent_id = None
    await session.flush()
    await session.delete(run)
    await session.flush()


async def _want(session: AsyncSession, run: Run, desired: Desired, at_once: RunState) -> None:
    """Note what is wanted; a run that no worker holds gets there at once."""
    if run.state in (*LIVE, LOST):
        if run.desired != desired:
            run.desired, run.version = desired, run.version + 1
        return
    if run.state == at_once:
        return
    await attempts.end_queued(session, run.id, at_once)
    if not await repository.move(session, run.id, at_once, desired=desired):
        raise Conflict(f"the run is {run.state} now: look again", code="invalid_state")


def _refuse(run: Run, verb: str, refused: bool) -> None:
    if refused:
        raise Conflict(
            f"run {run.id} is {run.state} (desired: {run.desired}), which does not allow {verb}",
            code="invalid_state",
        )


def check_version(run: Run, if_match: str | None) -> None:
    """Refuse a write that was made looking at an older version. Raises PreconditionFailed, and Invalid for
    what is no list of ETags."""
    if if_match is None or if_match.strip() == "*":
        return
    if not _IF_MATCH.fullmatch(if_match.strip()):
        message = f'If-Match takes the ETag of a version, "{run.version}", or *'
        raise invalid([ProblemItem(pointer="/If-Match", message=message)], "invalid")
    given = [tag.strip().removeprefix("W/").strip('"') for tag in if_match.split(",")]
    if str(run.version) not in given:
        raise PreconditionFailed(
            f"the run is at version {run.version} now: read it again, then write", code="version_mismatch"
        )


class PreconditionFailed(Invalid):
    status, code = 412, "precondition_failed"


def fresh_id() -> str:
    return new_id("r")
