"""Verbs that read: runs, show, logs, metrics, checkpoints, models, gpus."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nanochat_client.cli.output import (
    Json,
    clean,
    dump,
    duration,
    facts,
    first_of,
    progress,
    say,
    size,
    table,
)

Id = Annotated[str, typer.Argument(metavar="ID")]
Limit = Annotated[int, typer.Option(min=1, max=200)]


def runs(
    stage: Annotated[str | None, typer.Option()] = None,
    state: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    tag: Annotated[str | None, typer.Option()] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Runs, newest first."""
    from nanochat_client import Client

    with Client() as client:
        page = client.runs(stage=stage, state=state or [], tag=tag, limit=limit)
    if as_json:
        dump(page.items)
        return
    rows = [
        (
            run.id,
            run.stage,
            run.name,
            run.state.value,
            progress(run),
            first_of(run.summary, "train/loss", "sft/loss"),
            duration(run),
            run.created_at,
        )
        for run in page.items
    ]
    table(
        ("id", "stage", "name", "state", "steps", "loss", "took", "created"),
        rows,
        "no runs yet: nanochat pipeline demo --follow",
    )


def show(run_id: Id, as_json: Json = False) -> None:
    """One run: its state, config, latest metrics and checkpoints."""
    from nanochat_client import Client

    with Client() as client:
        run = client.run(run_id)
        if as_json:
            dump(run)
            return
        made = client.checkpoints(run=run.id).items
    facts(
        [
            ("id", run.id),
            ("name", run.name),
            ("stage", run.stage),
            ("state", run.state.value),
            ("reason", run.reason.value if run.reason else None),
            ("message", run.message),
            ("waits for", run.blocked.message if run.blocked else None),
            ("preset", run.preset),
            ("parent", run.parent),
            ("pipeline", run.pipeline),
            ("gpus", run.gpus),
            ("attempt", run.attempt),
            ("steps", progress(run)),
            ("took", duration(run)),
            ("peak memory", size(run.peak_bytes) if run.peak_bytes else None),
            ("tags", run.tags),
            ("notes", run.notes),
        ]
    )
    for title, pairs in (("config", run.config), ("metrics", run.summary)):
        if pairs:
            say(f"\n{title}")
            facts([(f"  {name}", value) for name, value in sorted(pairs.items())])
    if made:
        say("\ncheckpoints")
        for item in made:
            say(f"  {item.id}  step {item.step}  {size(item.bytes)}  {item.model or item.path}")


def logs(
    run_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run ends.")] = False,
    search: Annotated[str | None, typer.Option("--search", "-q", help="Only lines with this text.")] = None,
    as_json: Json = False,
) -> None:
    """The log of a run."""
    from nanochat_client import Client
    from nanochat_client.cli.runs import follow_log

    if follow and (as_json or search):
        from nanochat_client.cli.output import fail

        fail("--follow goes with neither --json nor --search")
    with Client() as client:
        if follow:
            follow_log(client, client.run(run_id))
            return
        after, chunks = 0, []
        while True:
            page = client.logs(run_id, after=after, limit=1000 if search else 1024 * 1024, q=search)
            for chunk in page.items:
                if as_json:
                    chunks.append(chunk)
                else:
                    text = clean(chunk.text)
                    sys.stdout.write(text if not search or text.endswith("\n") else text + "\n")
            if page.last <= after or page.last >= page.end:
                break
            after = page.last
    if as_json:
        dump(chunks)


def metrics(
    run_id: Id,
    keys: Annotated[str, typer.Option(help="Comma-separated, e.g. train/loss,val/bpb; default: all.")] = "",
    points: Annotated[int, typer.Option(min=2, max=100_000, help="At most, per series.")] = 1000,
    as_json: Json = False,
) -> None:
    """Metric series of a run: first, lowest, highest and last value; `--json` has the points."""
    from nanochat_client import Client

    with Client() as client:
        answer = client.metrics(run_id, keys=[key for key in keys.split(",") if key], max_points=points)
    if as_json:
        dump(answer)
        return
    rows = []
    for series in answer.series:
        values = [value for value in series.y if value is not None]
        if values:
            rows.append((series.key, values[0], min(values), max(values), values[-1], int(series.x[-1])))
    table(("metric", "first", "lowest", "highest", "last", "step"), rows, "this run has no metrics yet")


def checkpoints(
    run: Annotated[str | None, typer.Option(metavar="ID")] = None,
    stage: Annotated[str | None, typer.Option()] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Checkpoints and tokenizers, newest first."""
    from nanochat_client import Client

    with Client() as client:
        page = client.checkpoints(run=run, stage=stage, limit=limit)
    if as_json:
        dump(page.items)
        return
    table(
        ("id", "run", "stage", "step", "size", "model", "created"),
        [
            (item.id, item.run_id, item.stage, item.step, size(item.bytes), item.model, item.created_at)
            for item in page.items
        ],
        "no checkpoints yet",
    )


def models(as_json: Json = False) -> None:
    """Models to chat with: aliases first, then every checkpoint, newest first."""
    from nanochat_client import Client

    with Client() as client:
        found = client.models()
    if as_json:
        dump(found)
        return
    table(
        ("model", "context", "loaded on"),
        [(item["id"], item.get("max_model_len"), item.get("device")) for item in found],
        "no models yet: nanochat pipeline demo --follow makes one",
    )


def gpus(as_json: Json = False) -> None:
    """Hosts and GPUs, how loaded they are and what runs on them."""
    from nanochat_client import Client

    with Client() as client:
        system = client.system()
    if as_json:
        dump(system.workers)
        return
    rows = []
    for worker in system.workers:
        state = "alive" if worker.alive else "gone"
        busy = ", ".join(worker.runs)
        live = {stats.index: stats for stats in worker.stats.gpus} if worker.stats else {}
        for gpu in worker.gpus:
            stats = live.get(gpu.index)
            used = f"{size(stats.memory_used_bytes)} of " if stats else ""
            load = f"{stats.utilization:.0%}" if stats and stats.utilization is not None else ""
            taken = busy if gpu.index in worker.busy_gpus else ""
            memory = used + size(gpu.memory_bytes)
            rows.append((worker.name, state, f"GPU {gpu.index}", gpu.name, load, memory, taken))
        if not worker.gpus:
            host = worker.stats
            memory = f"{size(host.memory_used_bytes)} of {size(host.memory_total_bytes)}" if host else ""
            kind = f"{host.cores} cores" if host else ""
            rows.append((worker.name, state, "CPU", kind, f"{host.cpu:.0%}" if host else "", memory, busy))
    table(
        ("host", "state", "device", "kind", "load", "memory", "runs"),
        rows,
        "no worker has registered: start one with nanochat worker",
    )


def register(app: typer.Typer) -> None:
    for verb in (runs, show, logs, metrics, checkpoints, models, gpus):
        app.command()(verb)
