"""Verbs about what models can do and where they come from: report, evaluations, lineage."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanochat_client.cli.output import Json, clean, dump, fail, say, table

if TYPE_CHECKING:
    from nanochat_client.types import Report, ReportCell

MODELS = ("base", "mid", "sft", "rl")


def report(
    what: Annotated[str, typer.Argument(metavar="ID", help="A run or a pipeline.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="The whole report as Markdown.")] = False,
    as_json: Json = False,
) -> None:
    """What the models of a run or a pipeline can do, side by side."""
    from nanochat_client import Client, NotFound

    with Client() as client:
        try:
            found = client.report(what)
        except NotFound:
            try:
                found = client.pipeline_report(what)
            except NotFound:
                fail(f"there is no run and no pipeline {what!r}; see nanochat runs")
    if as_json:
        dump(found)
    elif markdown:
        sys.stdout.write(clean(found.markdown))
    else:
        show_report(found)
        if found.missing:
            say(f"\n{len(found.missing)} of {len(found.runs)} runs have not succeeded and are not in it")


def show_report(found: Report) -> None:
    """The table on a terminal, else a line for each measure."""
    columns = [stage for stage in MODELS if any(stage in row.cells for row in found.rows)]
    if sys.stdout.isatty():
        rows = [
            (row.title, *(_cell(row.unit, row.cells.get(stage)) for stage in columns)) for row in found.rows
        ]
        table(("measure", *(stage.upper() for stage in columns)), rows, "no evaluation has been run yet")
        return
    for row in found.rows:
        shown = (f"{stage} {_cell(row.unit, row.cells[stage])}" for stage in columns if stage in row.cells)
        say(f"score {row.title}: {', '.join(shown)}")


def _cell(unit: str, cell: ReportCell | None) -> str:
    if cell is None:
        return "-"
    if unit != "accuracy":
        return f"{cell.value:.4f}"
    between = (
        "" if cell.low is None or cell.high is None else f" ({100 * cell.low:.0f}-{100 * cell.high:.0f})"
    )
    return f"{100 * cell.value:.1f} %{between}"


def evaluations(
    run: Annotated[str | None, typer.Option(metavar="ID", help="The run that measured.")] = None,
    checkpoint: Annotated[str | None, typer.Option(metavar="ID", help="What was measured.")] = None,
    name: Annotated[str | None, typer.Option(help="E.g. chat_eval.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 20,
    as_json: Json = False,
) -> None:
    """Results of evaluations, newest first, a line for each task."""
    from nanochat_client import Client

    with Client() as client:
        items = client.evaluations(run=run, checkpoint=checkpoint, name=name, limit=limit).items
    if as_json:
        dump(items)
        return
    rows: list[tuple[Any, ...]] = []
    for item in items:
        for task, value in item.values.items():
            low, high = item.intervals.get(task, (None, None))
            between = "" if low is None or high is None else f"{low:.3f} … {high:.3f}"
            rows.append(
                (item.name, item.stage, item.checkpoint, item.step, task, f"{value:.4f}", between,
                 item.counts.get(task), item.created_at)
            )  # fmt: skip
    table(
        ("evaluation", "model", "checkpoint", "step", "task", "value", "95 % interval", "n", "created"),
        rows,
        "no evaluations yet: nanochat run chat_eval",
    )


def lineage(
    checkpoint: Annotated[str, typer.Argument(metavar="ID", help="From `nanochat checkpoints`.")],
    as_json: Json = False,
) -> None:
    """From a checkpoint back to its data, tokenizer, config and code."""
    from nanochat_client import Client

    with Client() as client:
        found = client.lineage(checkpoint)
    if as_json:
        dump(found)
        return
    rows = []
    for step in found.steps:
        data, code = step.data or {}, step.code or {}
        source = str(data.get("source", "unknown"))
        amount = data.get("documents") or data.get("examples")
        commit = str(code.get("commit") or code.get("version") or "unknown")[:12]
        changed = " with changes" if code.get("changed") else ""
        rows.append(
            (step.stage, step.checkpoint, step.step, step.run_name, step.preset,
             source + (f" ({amount})" if amount else ""), commit + changed)
        )  # fmt: skip
    table(("stage", "checkpoint", "step", "run", "preset", "data", "code"), rows)
    if found.missing:
        say(f"the way back ends at {found.missing.path}, which the service does not know")


def register(app: typer.Typer) -> None:
    for verb in (report, evaluations, lineage):
        app.command()(verb)
