"""`nanochat plan`: worked out here, without a service."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nanochat.plan import main as probe_main
from nanochat.planner import Shape
from nanochat_client.cli import main

Plan = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Plan:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setenv("NANOCHAT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("nanochat.planner.host.host_gpus", list)

    def call(*argv: str) -> tuple[int, str, str]:
        status = 0
        try:
            main(("plan", *argv))
        except SystemExit as left:
            status = int(left.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def test_the_plan_of_the_readme_is_told_in_a_page(plan: Plan) -> None:
    status, out, _ = plan("base", "--config", "stable_26gb", "--gpus", "2", "--gpu", "RTX 5090")
    assert status == 0
    for word in (
        "252,313,600",
        "45,629",
        "2 × RTX 5090",
        "activations",
        "total",
        "fits:",
        "kWh",
        "predicted",
    ):
        assert word in out
    assert len(out.splitlines()) < 25


def test_what_does_not_fit_is_told_with_what_does(plan: Plan) -> None:
    status, out, _ = plan("base", "--config", "stable_26gb", "--target-vram-gb", "8", "--gpu", "RTX 5090")
    assert status == 0 and "does not fit" in out and "device_batch_size 2 (" in out
    assert "not even one row" in plan("base", "--gpu", "RTX 3080", "--set", "depth=48")[1]


def test_stages_that_go_on_from_a_checkpoint_are_planned_for_its_model(plan: Plan, tmp_path: Path) -> None:
    status, out, _ = plan("sft")
    assert status == 0 and "there is no mid_checkpoint yet" in out and "memory of a rank" not in out
    place = tmp_path / "base_checkpoints" / "a" / "step_000010"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text("{}")
    shape = Shape(12, 32768, 2048)
    (place / "meta.json").write_text(json.dumps({"model_config": shape.to_config()}))
    argv = ("rl", "--set", "sft_checkpoint=base_checkpoints/a", "--gpu", "RTX 4090", "--gpus", "2")
    status, out, _ = plan(*argv)
    assert status == 0 and f"{shape.params:,}" in out
    for word in ("answers", "answering", "learning", "cache", "lanes", "fits:", "hours are not planned"):
        assert word in out
    told = json.loads(plan(*argv, "--json")[1])
    assert told["rollouts"]["lanes"] == 64 and told["steps"] == 467 and told["seconds"] is None
    assert "fits:" in plan("chat_eval", "--set", "checkpoint=base_checkpoints/a", "--target-vram-gb", "9")[1]
    assert "not planned" in plan("tokenizer")[1]


def test_a_config_that_cannot_start_exits_2_with_the_nearest_valid_values(plan: Plan, tmp_path: Path) -> None:
    status, out, _ = plan("base", "--set", "depth=13", "--json")
    assert status == 2 and json.loads(out)["problems"][0]["nearest"] == 14
    mine = tmp_path / "mine.py"
    mine.write_text("depth = 4\ntotal_batch_size = 100000\n")
    status, out, _ = plan("base", "--config", str(mine))
    assert status == 2 and "problem: total_batch_size 100000 is no multiple" in out


def test_the_json_is_that_of_the_service(plan: Plan) -> None:
    status, out, _ = plan("base", "--config", "debug_cpu", "--json")
    told = json.loads(out)
    assert status == 0 and told["device"] == "CPU" and told["ranks"] == 2 and told["preset"] == "debug_cpu"
    assert json.loads(plan("base", "--config", "auto", "--json")[1])["config"]["depth"] == 4


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("base", "--gpu", "RTX 5900"), "nearest is 'RTX 5090'"),
        (("sft", "--probe"), "measures stage 'base' only"),
        (("tokenizer", "--gpus", "1"), "uses no GPU"),
        (("bass",), "nearest is 'base'"),
        (("base", "--config", "stable_26"), "stable_26gb"),
        (("base", "--config", "no/such.py"), "no file no/such.py"),
        (("base", "--set", "device=cpu", "--gpus", "2"), "leave one of them out"),
    ],
)
def test_wrong_usage_exits_2_with_one_sentence(plan: Plan, argv: tuple[str, ...], said: str) -> None:
    status, out, err = plan(*argv)
    assert status == 2 and out == "" and said in err and err.count("\n") == 1


def test_a_probe_becomes_the_program_that_measures(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[str] = []

    def execv(_: str, argv: list[str]) -> None:
        became.extend(argv[2:])
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", execv)
    plan("base", "--config", "debug_cpu", "--set", "depth=4", "--probe")
    assert became[:2] == ["nanochat.plan", "--probe"]
    assert {"--depth=4", "--device=cpu"} <= set(became)


def test_a_probe_measures_on_the_cpu_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    small = [
        "--depth=2",
        "--max_seq_len=32",
        "--device_batch_size=2",
        "--total_batch_size=128",
        "--compile=off",
    ]
    assert probe_main(["--probe", *small, "--eval_every=0"]) == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err
    assert probe_main(["--probe", *small, "--eval_every=0", "--device=cpu"]) == 0
    out = capsys.readouterr().out
    assert "measured" in out and "peak MiB" in out and "step ms" in out
    assert probe_main(small) == 2
