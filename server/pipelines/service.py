"""Pipelines: nothing but runs with parents, made in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from nanochat.configurator import nearest_name
from nanochat.hardware import Gpu
from nanochat_client import types
from nanochat_client.types import PipelineCreate, PipelineStep, ProblemItem, RunState
from server.attempts.inputs import fitting
from server.checkpoints.views import model_name
from server.files import uses as uploads
from server.ids import is_id
from server.models import Checkpoint, Pipeline, Run
from server.pipelines import presets
from server.problems import Conflict, Invalid, NotFound
from server.runs import repository, restart
from server.runs import service as runs
from server.runs.resolve import Resolved, invalid, known_stage, resolve
from server.runs.states import CANCELLED, FAILED, LIVE, LOST, SUCCEEDED, TERMINAL, WAITING
from server.runs.views import run_view
from server.workers import repository as workers

MAX_NAME = 64


async def create(session: AsyncSession, body: PipelineCreate, pipeline_id: str, base: Path) -> list[Run]:
    """Store the pipeline and its runs. Raises Invalid with pointers into the body; stores nothing then."""
    steps, name = _steps(body)
    _check_override_names(body, steps)
    offered = await workers.best_gpus(session)
    resolved: dict[str, Resolved] = {}
    nodes: dict[str, tuple[int, int]] = {}
    problems: list[ProblemItem] = []
    for index, step in enumerate(steps):
        try:
            _check_step(steps, index)
            got = _resolve(body, step, index, name, offered, base)
            nodes[step.name] = runs.nodes_of(step, got, f"/steps/{index}")
        except Invalid as error:
            problems += error.errors
            continue
        missing = await uploads.missing(session, got.config, base, f"/steps/{index}/overrides")
        problems += _where_given(missing, body, step, index)
        resolved[step.name] = got
    if problems:
        raise invalid(problems)
    session.add(Pipeline(id=pipeline_id, name=name, preset=body.preset))
    await session.flush()
    made: dict[str, Run] = {}
    for index, step in enumerate(steps):
        parent = made.get(_parent_name(steps, index) or "")
        run = runs.new_run(
            resolved[step.name],
            runs.fresh_id(),
            name=_run_name(name, step.name),
            parent=parent,
            checkpoint=step.checkpoint,
        )
        run.pipeline_id, run.pipeline_step, run.optional = pipeline_id, step.name, step.optional
        run.nodes, run.min_nodes = nodes[step.name]
        await runs.add(session, run)  # one by one: the order of creation is the order of the steps
        made[step.name] = run
    return list(made.values())


def _steps(body: PipelineCreate) -> tuple[list[PipelineStep], str]:
    """The steps asked for and the pipeline's name. Raises Invalid."""
    if (body.preset is None) == (not body.steps):
        message = "give either the name of a preset or steps"
        raise invalid([ProblemItem(pointer="/preset", message=message)], "invalid")
    shipped = presets.find(body.preset) if body.preset is not None else None
    steps = shipped.steps if shipped else body.steps
    return steps, body.name or (shipped.name if shipped else None) or body.preset or "pipeline"


def _check_override_names(body: PipelineCreate, steps: Sequence[PipelineStep]) -> None:
    known = [step.name for step in steps]
    problems = [
        ProblemItem(
            pointer=f"/overrides/{name}",
            message=f"there is no step {name!r}; there are {', '.join(known)}",
            nearest=nearest_name(name, known),
        )
        for name in body.overrides
        if name not in known
    ]
    if problems:
        raise invalid(problems)


def _check_step(steps: Sequence[PipelineStep], index: int) -> None:
    """Names are unique, parents come earlier and fit. Raises Invalid."""
    step, at = steps[index], f"/steps/{index}"
    earlier = {other.name: other for other in steps[:index]}
    if step.name in earlier:
        raise invalid([ProblemItem(pointer=f"{at}/name", message=f"two steps are called {step.name!r}")])
    restart.check_selector(step.checkpoint, f"{at}/checkpoint")
    parent_name = _parent_name(steps, index)
    if parent_name is None:
        return
    if parent_name not in earlier:
        message = f"{parent_name!r} is no earlier step; there are {', '.join(earlier) or 'none'}"
        nearest = nearest_name(parent_name, earlier)
        raise invalid([ProblemItem(pointer=f"{at}/parent", message=message, nearest=nearest)])
    known_stage(step.stage, f"{at}/stage")
    if earlier[parent_name].optional and not step.optional:
        message = f"step {step.name!r} cannot start from {parent_name!r}, which is optional"
        raise invalid([ProblemItem(pointer=f"{at}/parent", message=message)])
    parent_stage = earlier[parent_name].stage
    if fitting(step.stage, parent_stage) is None:
        message = f"stage {step.stage!r} cannot start from stage {parent_stage!r} of step {parent_name!r}"
        raise invalid([ProblemItem(pointer=f"{at}/parent", message=message)])


def _parent_name(steps: Sequence[PipelineStep], index: int) -> str | None:
    return steps[index].parent or (steps[index - 1].name if index else None)


def _resolve(
    body: PipelineCreate, step: PipelineStep, index: int, name: str, offered: Sequence[Gpu], base: Path
) -> Resolved:
    """Config of one step; what is wrong with an override points to where that override was given."""
    overrides = body.overrides.get(step.name, {})
    try:
        return resolve(
            step.stage, step.config, {**step.overrides, **overrides}, step.gpus,
            base=base, name=_run_name(name, step.name), offered=offered, at=f"/steps/{index}",
        )  # fmt: skip
    except Invalid as error:
        _where_given(error.errors, body, step, index)
        raise


def _where_given(
    problems: list[ProblemItem], body: PipelineCreate, step: PipelineStep, index: int
) -> list[ProblemItem]:
    """The problems, changed to point to where the override was given: in the step, or beside the steps."""
    inside, overrides = f"/steps/{index}/overrides/", body.overrides.get(step.name, {})
    for item in problems:
        field = item.pointer.removeprefix(inside).partition("/")[0]
        if item.pointer.startswith(inside) and (field in overrides or body.preset is not None):
            item.pointer = f"/overrides/{step.name}/{item.pointer.removeprefix(inside)}"
    return problems


def _run_name(pipeline: str, step: str) -> str:
    return f"{pipeline}-{step}"[:MAX_NAME]


# ---------------------------------------------------------------- reading


async def get(session: AsyncSession, pipeline_id: str) -> Pipeline:
    found = await session.get(Pipeline, pipeline_id) if is_id(pipeline_id) else None
    if found is None:
        raise NotFound(f"there is no pipeline {pipeline_id!r}: GET /pipelines lists them")
    return found


async def runs_of(session: AsyncSession, pipeline_ids: Sequence[str]) -> dict[str, list[Run]]:
    """The runs of each pipeline, in the order of its steps."""
    query = select(Run).where(Run.pipeline_id.in_(pipeline_ids)).order_by(Run.created_at, Run.id)
    found: dict[str, list[Run]] = {pipeline_id: [] for pipeline_id in pipeline_ids}
    for run in await session.scalars(query):
        found[run.pipeline_id or ""].append(run)
    return found


async def view(session: AsyncSession, pipeline: Pipeline, members: Sequence[Run]) -> types.Pipeline:
    state = state_of([RunState(run.state) for run in members if not _dispensable(run)])
    return types.Pipeline(
        id=pipeline.id,
        name=pipeline.name,
        state=state,
        runs=[run_view(run) for run in members],
        model=await _model(session, members) if state == SUCCEEDED else None,
        created_at=pipeline.created_at,
    )


def _dispensable(run: Run) -> bool:
    """Whether the run ended in a way that the pipeline does not mind."""
    return run.optional and run.state == FAILED


def state_of(states: Sequence[RunState]) -> RunState:
    """Failed if any failed, else cancelled if any was, succeeded if all did, else that of the active run."""
    for ended in (FAILED, CANCELLED):
        if ended in states:
            return ended
    unfinished = [state for state in states if state != SUCCEEDED]
    if not unfinished:
        return SUCCEEDED
    active = [state for state in unfinished if state in (*LIVE, LOST)]
    return (active or [state for state in unfinished if state != WAITING] or unfinished)[0]


async def _model(session: AsyncSession, members: Sequence[Run]) -> str | None:
    """Name of the newest language model these runs made."""
    by_id = {run.id: run for run in members}
    query = (
        select(Checkpoint)
        .where(Checkpoint.run_id.in_(by_id), Checkpoint.model_config_.is_not(None))
        .order_by(Checkpoint.created_at.desc(), Checkpoint.step.desc())
        .limit(1)
    )
    newest = (await session.scalars(query)).one_or_none()
    return model_name(by_id[newest.run_id], newest) if newest else None


async def cancel(session: AsyncSession, pipeline: Pipeline) -> list[Run]:
    """Cancel every run that has not ended. Raises Conflict when all have. Returns those it told."""
    members = (await runs_of(session, [pipeline.id]))[pipeline.id]
    told = []
    for member in reversed(members):  # children first: none must see a cancelled parent and fail
        run = await repository.get(session, member.id, lock=True)
        if run.state not in TERMINAL:
            await runs.cancel(session, run)
            told.append(run)
    if not told:
        raise Conflict(f"pipeline {pipeline.id} has ended: nothing is left to cancel", code="invalid_state")
    return told
