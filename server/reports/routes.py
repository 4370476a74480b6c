"""Reports over HTTP: as JSON, or with `format=text` as Markdown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse

from nanochat_client.types import Report
from server.deps import Read
from server.pipelines import service as pipelines
from server.reports import service
from server.runs import repository as runs

router = APIRouter(tags=["reports"])
AS_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}
}
Format = Annotated[Literal["json", "text"], Query(description="text: Markdown alone")]


@router.get("/runs/{run_id}/report", response_model=Report, responses=AS_TEXT)
async def run_report(run_id: str, session: Read, format: Format = "json") -> Report | PlainTextResponse:
    """What the run and those it starts from did, and what their models can do; in a pipeline, all of it."""
    run = await runs.get(session, run_id)
    pipeline = await pipelines.get(session, run.pipeline_id) if run.pipeline_id else None
    name = pipeline.name if pipeline else run.name
    return _answer(await service.report(session, name, await service.around(session, run)), format)


@router.get("/pipelines/{pipeline_id}/report", response_model=Report, responses=AS_TEXT)
async def pipeline_report(
    pipeline_id: str, session: Read, format: Format = "json"
) -> Report | PlainTextResponse:
    """The report of a pipeline; runs that have not succeeded are `missing`."""
    pipeline = await pipelines.get(session, pipeline_id)
    members = (await pipelines.runs_of(session, [pipeline.id]))[pipeline.id]
    return _answer(await service.report(session, pipeline.name, members), format)


def _answer(report: Report, format: str) -> Report | PlainTextResponse:
    if format == "json":
        return report
    return PlainTextResponse(report.markdown, media_type="text/markdown; charset=utf-8")
