"""Presets are parsed, never executed; every mistake names its place and the nearest valid value."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_a_preset_file_may_come_as_config_flag_or_json(tmp_path: Path) -> None:
    python, resolved = tmp_path / "a.py", tmp_path / "config.json"
    python.write_text("depth = 6\n")
    resolved.write_text(json.dumps({"depth": 8, "eval_every": 0}))
    assert config_from_argv(BASE, [f"--config={python}"], {}).depth == 6
    assert config_from_argv(BASE, ["--config", str(resolved)], {}).depth == 8


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--depht=4"], "depth"),
        (["--depth=four"], "depth"),
        (["--depth"], "needs a value"),
        (["debug_cpu", "extra"], "extra"),
        (["no_such_preset"], "no_such_preset"),
        (["--total_batch_size=1000"], "nearest valid value is"),
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
