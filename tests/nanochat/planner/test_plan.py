"""Plans, fits, the preset auto, and what is known of a host."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nanochat.configurator import ConfigError, automatic_preset, config_from_argv, find_preset, validate
from nanochat.hardware import Gpu, cpu_has_bfloat16, find_gpu, visible
from nanochat.planner import automatic, fit, plan_base
from nanochat.planner.dry import dry_run, named_gpu
from nanochat.planner.host import gpu_of, vocabulary
from nanochat.stages import STAGES
from nanochat.stages.base import BaseConfig
from nanochat.tokenizer import Tokenizer

GIB = 1 << 30


def card(name: str) -> Gpu:
    found = find_gpu(name)
    assert found is not None
    return found


STABLE = BaseConfig(**find_preset("stable_26gb").values)


def test_a_plan_counts_steps_tokens_and_micro_batches_as_the_trainer_does() -> None:
    cfg = BaseConfig(depth=4, max_seq_len=512, device_batch_size=4, total_batch_size=8192, num_iterations=10)
    plan = plan_base(cfg, vocab_size=8192, ranks=2, gpu=card("RTX 5090"))
    assert (plan.params, plan.flops_per_token, plan.steps) == (7_340_032, 37_748_736, 10)
    assert (plan.accumulation, plan.tokens) == (2, 81920)
    assert plan.fits and plan.energy_kwh and plan.mfu and 0 < plan.mfu < 0.42
    automatic_batch = plan_base(
        cfg.model_copy(update={"total_batch_size": -1}), vocab_size=8192, ranks=2, gpu=None
    )
    assert automatic_batch.total_batch_size == cfg.model_copy(update={"total_batch_size": -1}).step_tokens(2)
    assert automatic_batch.fits is None and automatic_batch.energy_kwh is None


@pytest.mark.parametrize("target_gib", [6, 8, 12, 16, 20, 26, 30])
def test_a_fit_is_within_its_budget_keeps_the_batch_and_is_the_largest(target_gib: int) -> None:
    gpu, budget = card("RTX 5090"), target_gib * GIB
    found = fit(STABLE, vocab_size=65536, ranks=2, gpu=gpu, budget_bytes=budget)
    assert found.device_batch_size and found.total_batch_size == STABLE.total_batch_size
    assert found.total_bytes <= budget
    changed = {
        "device_batch_size": found.device_batch_size,
        "activation_checkpoint": found.activation_checkpoint,
    }
    fitting = STABLE.model_copy(update=changed)
    assert fitting.problems(2) == []
    assert plan_base(fitting, vocab_size=65536, ranks=2, gpu=gpu).memory.total == found.total_bytes
    rows = STABLE.total_batch_size // (STABLE.max_seq_len * 2)
    for size in range(found.device_batch_size + 1, rows + 1):
        if rows % size == 0:
            larger = fitting.model_copy(update={"device_batch_size": size})
            assert plan_base(larger, vocab_size=65536, ranks=2, gpu=gpu).memory.total > budget


def test_recomputing_is_proposed_only_where_not_one_row_fits_without() -> None:
    cfg = BaseConfig(depth=26, max_seq_len=16384, device_batch_size=4, total_batch_size=524288)
    tight = fit(cfg, vocab_size=65536, ranks=1, gpu=card("RTX 5090"), budget_bytes=32 * GIB)
    assert tight.activation_checkpoint and tight.device_batch_size
    roomy = fit(cfg, vocab_size=65536, ranks=1, gpu=card("H200"), budget_bytes=141 * GIB)
    assert not roomy.activation_checkpoint
    none = fit(cfg, vocab_size=65536, ranks=1, gpu=card("RTX 3060"), budget_bytes=8 * GIB)
    assert none.device_batch_size is None and none.total_bytes > 8 * GIB


@pytest.mark.parametrize(
    "names", [(), ("RTX 5090",), ("RTX 5090",) * 2, ("RTX 3060",), ("H100",) * 3, ("A100",) * 8]
)
def test_auto_is_valid_fits_and_ends_within_a_day(names: tuple[str, ...]) -> None:
    gpus = [card(name) for name in names]
    preset = automatic_preset(gpus)
    assert (preset.name, preset.path, preset.gpus) == ("auto", None, len(gpus))
    assert preset.stages() == ["base"]
    cfg = validate(STAGES["base"], preset.values, len(gpus) or None)
    assert isinstance(cfg, BaseConfig)
    if gpus:
        plan = plan_base(cfg, vocab_size=65536, ranks=len(gpus), gpu=gpus[0])
        assert plan.fits and (plan.seconds < 24 * 3600 or cfg.depth == 4)


def test_a_card_too_small_for_anything_gets_the_values_of_a_cpu() -> None:
    assert automatic([gpu_of("toy", 1 << 29)])["device"] == "cpu"


def test_scripts_take_auto_as_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.planner.host.host_gpus", list)
    assert config_from_argv(STAGES["base"], ["--config", "auto", "--depth=2"], {}).depth == 2
    monkeypatch.setattr("nanochat.planner.host.host_gpus", lambda: [card("RTX 5090")] * 2)
    alone = config_from_argv(STAGES["base"], ["auto"], {})
    assert alone.depth > 4 and alone.device == "auto"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert config_from_argv(STAGES["base"], ["auto"], {"WORLD_SIZE": "2"}).depth >= alone.depth


def test_a_dry_run_tells_problems_beside_the_plan(tmp_path: Path) -> None:
    values = {"depth": 13, "total_batch_size": 100_000}
    found = dry_run("base", values, gpus=1, gpu=card("RTX 4090"), base=tmp_path, target_gb=None)
    assert [(p.pointer, p.nearest) for p in found.problems] == [
        ("/depth", 14),
        ("/total_batch_size", 131072),
    ]
    assert found.values["fit"]["total_batch_size"] % 2048 == 0
    assert found.values["argv"][-2:] == ["--depth=13", "--total_batch_size=100000"]
    wrong = dry_run("base", {"depht": 4}, gpus=0, gpu=None, base=tmp_path, target_gb=None)
    assert wrong.values == {} and wrong.problems[0].nearest == "depth"


def test_the_command_of_a_plan_is_one_that_starts() -> None:
    found = dry_run("base", STABLE.model_dump(), gpus=2, gpu=None, base=Path("/nowhere"), target_gb=20)
    launcher, flags = found.values["argv"][:6], found.values["argv"][6:]
    assert launcher == ["torchrun", "--standalone", "--nproc-per-node", "2", "-m", "scripts.base_train"]
    assert config_from_argv(STAGES["base"], flags, {"WORLD_SIZE": "2"}) == STABLE
    assert found.values["budget_bytes"] == 20 * GIB and not found.values["fits"]
    assert "RTX 5090" in found.values["notes"][0]


def test_a_gpu_is_found_as_people_write_it() -> None:
    assert find_gpu("4090") == card("RTX 4090") != card("RTX 4090 D")
    assert find_gpu("NVIDIA GeForce RTX 5090") == card("RTX 5090")
    with pytest.raises(ConfigError, match="nearest is 'RTX 5090'") as caught:
        named_gpu("RTX 5900")
    assert caught.value.problems[0].pointer == "/gpu"


def test_the_vocabulary_is_that_of_the_tokenizer_a_run_would_take(tmp_path: Path) -> None:
    cfg = BaseConfig(depth=8)
    assert vocabulary(cfg, tmp_path) == 16384
    place = tmp_path / "tokenizer" / "mine"
    place.mkdir(parents=True)
    tokenizer = Tokenizer.train(iter(["some text to learn from, some more text"]), 280)
    (place / "tokenizer.json").write_text(tokenizer.to_json())
    (place / "manifest.json").write_text(json.dumps({}))
    assert vocabulary(cfg, tmp_path) == tokenizer.vocab_size
    named = cfg.model_copy(update={"tokenizer": "tokenizer/mine"})
    assert vocabulary(named, tmp_path) == tokenizer.vocab_size
    assert vocabulary(cfg.model_copy(update={"tokenizer": "nowhere"}), tmp_path) == 16384


@pytest.mark.parametrize(
    ("vendor", "flags", "faster"),
    [
        ("AuthenticAMD", "avx512f avx512_bf16", True),
        ("GenuineIntel", "avx512f avx512_bf16", False),
        ("GenuineIntel", "avx512_bf16 amx_bf16 amx_tile", True),
        ("AuthenticAMD", "avx2", False),
    ],
)
def test_bfloat16_where_it_is_faster(tmp_path: Path, vendor: str, flags: str, faster: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n\n")
    assert cpu_has_bfloat16(tmp_path / "cpuinfo") == faster
    assert not cpu_has_bfloat16(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [(None, "01"), ("", ""), ("1", "1"), ("1,0", "10"), ("-1", ""), ("GPU-a", "0"), ("0,7,1", "0")],
)
def test_hidden_gpus_are_not_planned_for(chosen: str | None, seen: str) -> None:
    assert "".join(map(str, visible(["GPU-aaa", "GPU-bbb"], chosen))) == seen
