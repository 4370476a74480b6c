"""`nanochat plan STAGE`: what a run would need, worked out here; no service is asked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanochat_client.cli.output import Json, dump, facts, fail, say, size

if TYPE_CHECKING:
    from nanochat.configurator import Preset
    from nanochat.hardware import Gpu
    from nanochat_client.types import MemoryView, Plan


def plan(
    stage: Annotated[str, typer.Argument(help="E.g. base; `python -m nanochat.stages` lists them.")],
    config: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="A preset; auto: planned for the GPUs here.")
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A field of the config; may be repeated."),
    ] = None,
    target_vram_gb: Annotated[
        float | None, typer.Option(min=0.1, max=1024, help="GiB a rank may take: find what fits.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="NAME", help='E.g. "RTX 5090"; default: those here.')
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=0, max=64)] = None,
    probe: Annotated[bool, typer.Option("--probe", help="base: run a few steps and measure.")] = False,
    as_json: Json = False,
) -> None:
    """What a run would need: memory, steps, hours, disk. Exits 2 when it could not start."""
    from nanochat.configurator import ConfigError, PresetError
    from nanochat.paths import base_dir
    from nanochat.planner.dry import dry_run, named_gpu
    from nanochat.planner.host import host_gpus
    from nanochat_client.cli.runs import assignments
    from nanochat_client.types import Plan, ProblemItem

    _check_stage(stage)
    overrides = assignments(stage, sets or [])
    try:
        offered = [named_gpu(gpu)] * max(1, gpus or 1) if gpu else host_gpus()
        on_cpu = overrides.get("device") == "cpu"
        preset = _preset(config, () if on_cpu else offered[:gpus])
    except (ConfigError, PresetError) as error:
        fail(str(error))
    values = {**(preset.values if preset else {}), **overrides}
    count = _count(stage, gpus, preset, values if gpus is None else overrides, offered)
    if count and values.get("device") == "cpu":
        values["device"] = "auto"
    if probe:
        _probe(stage, values)
    chosen = min(offered[:count], key=lambda one: one.memory_bytes, default=None)
    found = dry_run(stage, values, gpus=count, gpu=chosen, base=base_dir(), target_gb=target_vram_gb)
    problems = [ProblemItem(pointer=p.pointer, message=p.message, nearest=p.nearest) for p in found.problems]
    shown = Plan(stage=stage, preset=preset.name if preset else None, problems=problems, **found.values)
    if as_json:
        dump(shown)
    else:
        _print(shown)
    if problems:
        raise typer.Exit(2)


def _check_stage(stage: str) -> None:
    from nanochat.configurator import nearest_name
    from nanochat.stages import STAGES

    if stage not in STAGES:
        nearest = nearest_name(stage, STAGES)
        fail(f"there is no stage {stage!r}{f'; the nearest is {nearest!r}' if nearest else ''}")


def _preset(config: str | None, gpus: Sequence[Gpu]) -> Preset | None:
    from nanochat.configurator import find_preset, load_preset

    if config is None:
        return None
    path = Path(config)
    if path.is_file():
        return load_preset(path)
    if path.suffix in (".py", ".json") or os.sep in config:
        fail(f"--config: there is no file {config}")
    return find_preset(config, gpus)


def _count(
    stage: str, asked: int | None, preset: Preset | None, values: dict[str, Any], offered: Sequence[Gpu]
) -> int:
    """GPUs to plan for: as asked, else what the preset implies, else one if there is one."""
    from nanochat.stages import STAGES

    if not STAGES[stage].uses_gpu:
        if asked:
            fail(f"stage {stage!r} uses no GPU")
        return 0
    if values.get("device") == "cpu":
        if asked:
            fail(f"device is 'cpu' but --gpus is {asked}: leave one of them out")
        return 0
    if asked is not None:
        return asked
    return preset.gpus if preset and preset.gpus is not None else min(1, len(offered))


def _probe(stage: str, values: dict[str, Any]) -> None:
    if stage != "base":
        fail("--probe measures stage 'base' only")
    from nanochat_client.cli.service import become

    become("nanochat.plan", "--probe", *(f"--{key}={value}" for key, value in values.items()))


def _print(plan: Plan) -> None:
    if plan.config is not None:
        facts(_facts(plan))
        if plan.memory is not None:
            say("\nmemory of a rank at its peak")
            facts([(f"  {part}", size(count)) for part, count in _parts(plan.memory)])
            say(f"\n{_verdict(plan)}")
        for note in plan.notes:
            say(f"note: {note}")
    for problem in plan.problems:
        say(f"problem: {problem.message}")


def _parts(memory: MemoryView) -> Iterator[tuple[str, int]]:
    """Those that there are; what is 0 for stages of this kind is left out."""
    for part, count in memory.model_dump().items():
        if count or part == "total":
            yield part, count


def _facts(plan: Plan) -> Iterator[tuple[str, Any]]:
    yield "on", f"{plan.gpus} × {plan.device}" if plan.gpus else f"CPU, {plan.ranks} rank(s)"
    if plan.parameters is not None:
        yield "parameters", f"{plan.parameters:,}, vocabulary {plan.vocab_size:,}"
    if plan.flops_per_token is not None:
        yield "FLOPs", f"{plan.flops_per_token / 1e6:,.1f} M a token"
    if plan.accumulation is not None:
        tokens = "" if plan.total_batch_size is None else f"{plan.total_batch_size:,} tokens in "
        yield "step", f"{tokens}{plan.accumulation} micro-batch(es) a rank"
    if plan.steps is not None:
        yield "steps", f"{plan.steps:,}" + (f", {_many(plan.tokens)} tokens" if plan.tokens else "")
    if (rollouts := plan.rollouts) is not None:
        yield "answers", f"{rollouts.answers:,} a step on each rank, {rollouts.lanes} at once"
        cache = f"a cache of {size(rollouts.cache_bytes)}"
        yield "answering", f"{size(rollouts.answering_bytes)}, {cache} for {rollouts.tokens:,} tokens each"
        yield "learning", size(rollouts.learning_bytes)
    if plan.tokens_per_second is not None:
        busy = f", {plan.mfu:.0%} of peak" if plan.mfu is not None else ""
        yield "speed", f"{plan.tokens_per_second:,.0f} tokens/s{busy} (predicted)"
    if plan.seconds is not None:
        energy = f", {plan.energy_kwh:,.2f} kWh" if plan.energy_kwh is not None else ""
        yield "time", f"{_long(plan.seconds)}{energy} (predicted)"
    if plan.disk_bytes is not None:
        yield "disk", f"{size(plan.disk_bytes)}, a checkpoint {size(plan.checkpoint_bytes or 0)}"


def _verdict(plan: Plan) -> str:
    """Whether it fits, and what would."""
    if plan.memory is None or plan.budget_bytes is None:
        return "no limit was given: --target-vram-gb says whether it fits"
    room = f"{size(plan.memory.total)} of {size(plan.budget_bytes)}"
    best = plan.fit
    if best is None:
        return f"fits: {room}" if plan.fits else f"does not fit: {room}"
    if best.device_batch_size is None:
        return f"does not fit: {room}; not even one row would ({size(best.total_bytes)}): use a smaller model"
    extra = " with activation_checkpoint" if best.activation_checkpoint else ""
    lanes = f" and {best.lanes} lanes" if best.lanes is not None else ""
    largest = f"device_batch_size {best.device_batch_size}{lanes}{extra} ({size(best.total_bytes)})"
    if plan.fits:
        return f"fits: {room}; the largest that does is {largest}"
    return f"does not fit: {room}; {largest} does, with the same total batch"


def _many(count: int) -> str:
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if count >= unit:
            return f"{count / unit:,.2f} {name}"
    return f"{count:,}"


def _long(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def register(app: typer.Typer) -> None:
    app.command()(plan)
