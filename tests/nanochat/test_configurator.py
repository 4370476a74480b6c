"""Presets are parsed, never executed; every mistake names its place and the nearest valid value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.configurator import (
    ConfigError,
    Configurator,
    PresetError,
    config_from_argv,
    find_preset,
    load_preset,
    parse_preset,
    preset_files,
    validate,
)
from nanochat.stages import STAGES
from nanochat.stages.base import BaseConfig

BASE = STAGES["base"]


def test_a_preset_is_assignments_of_literals_and_bounded_arithmetic() -> None:
    lines = ['"""Doc."""', 'run = "x"', "depth: int = 4", "eval_tokens = 1 * 110592", "matrix_lr = -(-0.02)"]
    text = "\n".join([*lines, "model_tag = None", ""])
    assert parse_preset(text) == {"run": "x", "depth": 4, "eval_tokens": 110592, "matrix_lr": 0.02}


@pytest.mark.parametrize(
    "line",
    [
        '__import__("os").system("true")',
        'depth = __import__("os")',
        "depth = (1).__class__",
        "depth = [x for x in (1, 2)]",
        "depth = 9**9**9",
        "depth = 1 if True else 2",
        "depth = f'{1}'",
        "depth = other",
        "depth, run = 1, 2",
        "depth = True + 1",
        "depth = 1 / 0",
        "depth = (-1) ** 0.5",
        "depth = 1e308 * 10",
        "import os",
        "def f(): pass",
        "depth += 1",
        "depth = 1\ndepth = 2",
        "depth = " + "(" * 300 + "1" + ")" * 300,
        "depth = " + "-" * 5000 + "1",
        "depth = {",
        "run = 'x' * 10",
        "depth = 1" + "0" * 400,
        "run = '\\ud800'",
    ],
)
def test_anything_else_is_an_error_that_names_the_file(line: str) -> None:
    with pytest.raises(PresetError, match=r"my\.py"):
        parse_preset(line, "my.py")


def test_a_preset_error_names_the_line() -> None:
    with pytest.raises(PresetError, match=r"line 3"):
        parse_preset("depth = 4\n\nrun = open('x')\n")


def test_a_ten_megabyte_preset_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "big.py"
    file.write_text("depth = 4\n" * 1_000_000)
    with pytest.raises(PresetError, match="larger than"):
        load_preset(file)


@given(st.text(max_size=200))
def test_no_text_makes_the_parser_do_anything_but_answer_or_refuse(text: str) -> None:
    try:
        values = parse_preset(text)
    except PresetError:
        return
    assert all(isinstance(value, bool | int | float | str) for value in values.values())


def test_every_shipped_preset_is_valid_for_the_hosts_it_names() -> None:
    from_the_guide = "stable_26gb stable_24gb stable_20gb balanced conservative aggressive stable_success"
    assert {*from_the_guide.split(), "config_dual_gpu", "debug_cpu"} <= preset_files().keys()
    for name in preset_files():
        preset = find_preset(name)
        assert preset.stages(), f"{name} fits no stage"
        for stage in preset.stages():
            validate(STAGES[stage], preset.values, preset.gpus or None)


#: depth, device_batch_size, max_seq_len, total_batch_size, eval_every, eval_tokens, core_metric_every,
#: activation_checkpoint, micro-batches a step on two GPUs: as these presets ran where they come from
DUAL_GPU: dict[str, tuple[int, int, int, int, int, int, int, bool, int]] = {
    "aggressive": (20, 14, 3072, 86016, 100, 172032, 1000, False, 1),
    "balanced": (16, 12, 2048, 49152, 100, 245760, 1000, False, 1),
    "conservative": (12, 8, 1536, 24576, 100, 245760, 1000, False, 1),
    "stable_20gb": (8, 4, 3072, 24576, 0, 0, 0, False, 1),
    "stable_24gb": (12, 10, 3072, 61440, 100, 61440, 1000, False, 1),
    "stable_26gb": (14, 18, 3072, 110592, 100, 110592, 1000, False, 1),
    "stable_success": (16, 10, 1536, 30720, 100, 30720, 1000, True, 1),
}


@pytest.mark.parametrize("name", DUAL_GPU)
def test_dual_gpu_presets_have_the_values_they_are_known_for(name: str) -> None:
    depth, batch, seq, total, every, tokens, core, recompute, accumulation = DUAL_GPU[name]
    values = dict(find_preset(name).values)
    assert values == {
        "run": f"dual_gpu_{name}",
        "depth": depth,
        "device_batch_size": batch,
        "max_seq_len": seq,
        "total_batch_size": total,
        "eval_every": every,
        "eval_tokens": tokens,
        "sample_every": every,
        "core_metric_every": core,
        "core_metric_max_per_task": core // 2,
        "activation_checkpoint": recompute,
        "use_dummy_wandb": True,
        "grad_clip": 1.0,
        "embedding_lr": 0.2,
        "unembedding_lr": 0.004,
        "matrix_lr": 0.02,
        "weight_decay": 0.0,
    }
    assert total == accumulation * batch * seq * 2


def test_the_plain_dual_gpu_preset_sets_little() -> None:
    values = dict(find_preset("config_dual_gpu").values)
    assert values.pop("run") == "dual_gpu_distributed" and values.pop("use_dummy_wandb") is True
    assert values == {
        "depth": 16,
        "device_batch_size": 16,
        "max_seq_len": 2048,
        "total_batch_size": 524288,
        "eval_every": 50,
    }


def test_dual_gpu_presets_imply_two_gpus_and_cpu_presets_none() -> None:
    assert find_preset("stable_26gb").gpus == 2
    assert find_preset("config_dual_gpu").gpus == 2
    assert find_preset("debug_cpu").gpus == 0
    assert find_preset("debug_cpu").values["processes"] == 2


def test_an_unknown_preset_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError) as caught:
        find_preset("stable_25gb")
    assert caught.value.problems[0].nearest in ("stable_26gb", "stable_24gb", "stable_20gb")


@pytest.mark.parametrize(
    ("values", "pointer", "nearest"),
    [
        ({"depht": 4}, "/depht", "depth"),
        ({"depth": True}, "/depth", None),
        ({"depth": "4"}, "/depth", None),
        ({"device_batch_size": -1}, "/device_batch_size", 1),
        ({"depth": 13}, "/depth", 14),
        (
            {"total_batch_size": 100_000, "device_batch_size": 4, "max_seq_len": 1024},
            "/total_batch_size",
            98304,
        ),
        ({"eval_tokens": 10}, "/eval_tokens", 65536),
        ({"target_param_data_ratio": 0}, "/num_iterations", 1000),
    ],
)
def test_a_config_that_cannot_run_says_where_and_what_would(
    values: dict[str, object], pointer: str, nearest: object
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(BASE, values, 1)
    problem = next(p for p in caught.value.problems if p.pointer == pointer)
    assert problem.nearest == nearest


@given(
    total=st.integers(1, 2_000_000),
    batch=st.integers(1, 64),
    seq=st.sampled_from([128, 256, 1536, 2048]),
    ranks=st.integers(1, 8),
)
def test_the_nearest_total_batch_size_is_itself_valid(total: int, batch: int, seq: int, ranks: int) -> None:
    values = {"device_batch_size": batch, "max_seq_len": seq, "eval_every": 0}
    config = BaseConfig(total_batch_size=total, **values)
    for problem in config.problems(ranks):
        fixed = BaseConfig(total_batch_size=problem.nearest, **values)
        assert fixed.problems(ranks) == []


def test_flags_win_over_the_preset_whatever_their_spelling() -> None:
    config = config_from_argv(
        BASE,
        ["debug_cpu", "--depth", "4", "--matrix-lr=0.05", "--activation_checkpoint", "--resume_from=auto"],
        {},
    )
    assert (config.depth, config.matrix_lr, config.activation_checkpoint) == (4, 0.05, True)
    assert (config.resume_from, config.device_batch_size) == ("auto", 4)


def another(name: str) -> object:
    """A valid value of a field of the base stage that is not its default."""
    field = BaseConfig.model_fields[name]
    default, choices = field.default, get_args(field.annotation)
    if name in ("depth", "total_batch_size"):
        return {"depth": 22, "total_batch_size": -1}[name]
    if isinstance(default, bool):
        return not default
    if choices:
        return next(choice for choice in choices if choice != default)
    if isinstance(default, str):
        return "x1"
    return default + 1 if isinstance(default, int) else default / 2 + 0.25


@pytest.mark.parametrize("name", BaseConfig.model_fields)
def test_every_field_is_a_flag_in_both_spellings(name: str) -> None:
    value = another(name)
    fits = [] if name == "total_batch_size" else ["--total_batch_size=-1"]  # whatever the batch is cut into
    for flag in ([f"--{name}={value}"], [f"--{name.replace('_', '-')}", str(value)]):
        config = config_from_argv(BASE, [*fits, *flag], {})
        assert getattr(config, name) == value != BaseConfig.model_fields[name].default


def test_a_preset_file_may_come_as_config_flag_or_json(tmp_path: Path) -> None:
    python, resolved = tmp_path / "a.py", tmp_path / "config.json"
    python.write_text("depth = 6\n")
    resolved.write_text(json.dumps({"depth": 8, "eval_every": 0}))
    assert config_from_argv(BASE, [f"--config={python}"], {}).depth == 6
    assert config_from_argv(BASE, ["--config", str(resolved)], {}).depth == 8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 30_000, "recursion"),
        ('{"depth": 2, "depth": 4}', "twice"),
        ('{"target_flops": Infinity}', "no number"),
        ('{"target_flops": 1e999}', "beyond"),
        ("[]", "one JSON object"),
        ("{", "line 1"),
    ],
)
def test_a_json_preset_is_one_object_of_standard_json(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "my.json"
    file.write_text(text)
    with pytest.raises(PresetError, match=rf"my\.json.*{says}"):
        load_preset(file)


def test_a_whole_number_of_more_than_64_bits_is_refused_by_its_field() -> None:
    with pytest.raises(ConfigError) as caught:
        validate(BASE, {"total_batch_size": 10**400 + 1}, 1)
    assert [problem.pointer for problem in caught.value.problems] == ["/total_batch_size"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--depht=4"], "depth"),
        (["--depth=four"], "depth"),
        (["--depth"], "needs a value"),
        (["debug_cpu", "extra"], "extra"),
        (["no_such_preset"], "no_such_preset"),
        (["--total_batch_size=1000"], "nearest valid value is"),
        (["--depth=13"], "nearest valid depth is 14"),
        (["--target_flops=1e999"], "finite"),
        (["--eval_tokens=10"], "use 65536 or more, or eval_every 0"),
    ],
)
def test_wrong_usage_exits_2_with_one_sentence(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        config_from_argv(BASE, argv, {})
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


def test_help_names_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        config_from_argv(BASE, ["--help"], {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}=" in text for name in BaseConfig.model_fields)


def test_configurator_is_attributes_and_a_mapping() -> None:
    config = Configurator("debug_cpu")
    assert config.depth == config["depth"] == 2
    assert dict(config)["total_batch_size"] == 2048
    with pytest.raises(KeyError):
        config["no_such_key"]
    with pytest.raises(AttributeError):
        _ = config.no_such_key


def test_every_field_of_every_stage_has_a_description_and_a_safe_default() -> None:
    for stage in STAGES.values():
        stage.config()
        for name, field in stage.config.model_fields.items():
            assert field.description, f"{stage.name}.{name} has no description"
