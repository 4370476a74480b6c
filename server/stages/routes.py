"""The stage table and the presets, as forms and clients need them."""

from __future__ import annotations

from fastapi import APIRouter

from nanochat.configurator import ConfigError, PresetError, load_preset, nearest_name, preset_files, validate
from nanochat.paths import repo_dir
from nanochat.stages import STAGES, Stage
from nanochat_client.types import ConfigView, Page, ProblemItem, StageView
from server.problems import NotFound

router = APIRouter(tags=["stages"])


@router.get("/stages")
def list_stages() -> Page[StageView]:
    """Every stage with the JSON schema of its config, in the order they are usually run."""
    presets = _presets_by_stage()
    return Page(items=[_stage_view(stage, presets) for stage in STAGES.values()])


@router.get("/stages/{stage}")
def get_stage(stage: str) -> StageView:
    if stage not in STAGES:
        raise NotFound(f"there is no stage {stage!r}{_nearest(stage, list(STAGES))}")
    return _stage_view(STAGES[stage], _presets_by_stage())


@router.get("/configs")
def list_configs() -> Page[ConfigView]:
    """The presets that ship: what each sets, what it resolves to, what is wrong with it."""
    return Page(items=[_config_view(name) for name in preset_files()])


@router.get("/configs/{name}")
def get_config(name: str) -> ConfigView:
    if name not in preset_files():
        raise NotFound(f"there is no preset {name!r}{_nearest(name, list(preset_files()))}")
    return _config_view(name)


def _nearest(name: str, known: list[str]) -> str:
    nearest = nearest_name(name, known)
    return f"; the nearest is {nearest!r}" if nearest else f"; there are {', '.join(known)}"


def _presets_by_stage() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in STAGES}
    for name, path in preset_files().items():
        try:
            stages = load_preset(path).stages()
        except PresetError:
            continue  # GET /configs says what is wrong with it
        for stage in stages:
            found[stage].append(name)
    return found


def _stage_view(stage: Stage, presets: dict[str, list[str]]) -> StageView:
    return StageView(
        name=stage.name,
        title=stage.title,
        config_schema=stage.config.model_json_schema(),
        inputs=[{"field": i.field, "stages": list(i.stages), "required": i.required} for i in stage.inputs],
        presets=presets[stage.name],
        uses_gpu=stage.uses_gpu,
    )


def _config_view(name: str) -> ConfigView:
    """A preset as its first stage sees it: most presets fit one stage only."""
    path = preset_files()[name]
    where = str(path.relative_to(repo_dir()))
    try:
        preset = load_preset(path)
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
