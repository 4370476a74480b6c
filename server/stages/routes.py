"""The stage table and the presets, as forms and clients need them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastapi import APIRouter

from nanochat.configurator import (
    AUTO,
    ConfigError,
    PresetError,
    find_preset,
    load_preset,
    nearest_name,
    preset_files,
    preset_names,
    validate,
)
from nanochat.files import ROOT
from nanochat.hardware import Gpu
from nanochat.paths import repo_dir
from nanochat.stages import STAGES, Stage
from nanochat_client.types import ConfigView, Page, ProblemItem, StageView
from server.deps import Read, ServicesDep
from server.problems import NotFound
from server.workers.repository import best_gpus

router = APIRouter(tags=["stages"])


@router.get("/stages")
def list_stages(services: ServicesDep) -> Page[StageView]:
    """Every stage with the JSON schema of its config, in the order they are usually run."""
    presets = _presets_by_stage(services.settings.base_dir)
    return Page(items=[_stage_view(stage, presets) for stage in STAGES.values()])


@router.get("/stages/{stage}")
def get_stage(stage: str, services: ServicesDep) -> StageView:
    if stage not in STAGES:
        raise NotFound(f"there is no stage {stage!r}{_nearest(stage, list(STAGES))}")
    return _stage_view(STAGES[stage], _presets_by_stage(services.settings.base_dir))


@router.get("/configs")
async def list_configs(session: Read, services: ServicesDep) -> Page[ConfigView]:
    """The presets, uploaded ones too: what each sets, what it resolves to, what is wrong with it.

    `auto` has no file: it is planned for the GPUs of the best worker, else for a CPU.
    """
    gpus, base = await best_gpus(session), services.settings.base_dir
    return Page(items=[_config_view(name, gpus, base) for name in preset_names(base)])


@router.get("/configs/{name}")
async def get_config(name: str, session: Read, services: ServicesDep) -> ConfigView:
    base = services.settings.base_dir
    if name not in (known := preset_names(base)):
        raise NotFound(f"there is no preset {name!r}{_nearest(name, known)}")
    return _config_view(name, await best_gpus(session), base)


def _nearest(name: str, known: list[str]) -> str:
    nearest = nearest_name(name, known)
    return f"; the nearest is {nearest!r}" if nearest else f"; there are {', '.join(known)}"


def _presets_by_stage(base: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in STAGES}
    for name, path in preset_files(base).items():
        try:
            stages = load_preset(path).stages()
        except (PresetError, FileNotFoundError):
            continue  # GET /configs says what is wrong with it; one that was deleted just now is not there
        for stage in stages:
            found[stage].append(name)
    found["base"].append(AUTO)
    return found


def _where(file: Path | None, base: Path) -> str:
    """Below the checkout, or below the base directory; `auto` has no file."""
    if file is None:
        return ""
    return str(file.relative_to(base if file.is_relative_to(base / ROOT) else repo_dir()))


def _stage_view(stage: Stage, presets: dict[str, list[str]]) -> StageView:
    return StageView(
        name=stage.name,
        title=stage.title,
        config_schema=stage.config.model_json_schema(),
        inputs=[{"field": i.field, "stages": list(i.stages), "required": i.required} for i in stage.inputs],
        presets=presets[stage.name],
        uses_gpu=stage.uses_gpu,
    )


def _config_view(name: str, gpus: Sequence[Gpu], base: Path) -> ConfigView:
    """A preset as its first stage sees it: most presets fit one stage only."""
    where = _where(preset_files(base).get(name), base)
    try:
        preset = find_preset(name, gpus, base)
    except PresetError as error:
        problem = ProblemItem(pointer="", message=str(error))
        return ConfigView(name=name, path=where, stages=[], values={}, problems=[problem])
    view = ConfigView(
        name=name, path=where, stages=preset.stages(), gpus=preset.gpus, values=dict(preset.values)
    )
    if not view.stages:
        view.problems = [ProblemItem(pointer="", message="no stage knows all keys of this preset")]
        return view
    stage = STAGES[view.stages[0]]
    try:
        config = validate(stage, preset.values, (preset.gpus or None) if stage.distributed else 1)
        view.resolved = config.model_dump(mode="json")
    except ConfigError as error:
        view.problems = [
            ProblemItem(pointer=p.pointer, message=p.message, nearest=p.nearest) for p in error.problems
        ]
    return view
