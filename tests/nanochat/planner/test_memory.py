"""The planner's memory, held against tensors that are counted and runs that are measured."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nanochat import attention, loss
from nanochat.planner import Setting, peak_memory
from nanochat.planner.memory import heap_bytes, moments
from nanochat.planner.original import FIELD, FIELD_BYTES, original_memory
from nanochat.planner.setting import ATTENTION_BLOCK, ATTENTION_LONGEST, CHUNK_BYTES, GRAD_CACHED
from nanochat.planner_check import fake, measured
from nanochat.planner_check.__main__ import main

#: one of each kind: types, recomputing, small and large vocabularies, arch: modern. All of them:
#: `python -m nanochat.planner_check fake`
COUNTED = (1, 2, 4, 7, 10, 12, 14)


@pytest.mark.parametrize("setting", [fake.SETTINGS[i] for i in COUNTED], ids=COUNTED)
def test_the_plan_is_what_fake_tensors_add_up_to(setting: Setting) -> None:
    tracked = fake.tracked_peak(setting)
    assert peak_memory(setting).total == pytest.approx(tracked, rel=0.05)


def test_the_known_figure_of_two_cards_is_met_within_a_tenth() -> None:
    planned = original_memory(FIELD)
    assert planned.total == pytest.approx(FIELD_BYTES, rel=0.10)
    tracked = fake.tracked_plain_loss(FIELD)
    assert planned.loss == pytest.approx(tracked, rel=0.02)


#: what a test has time for; `python -m nanochat.planner_check measured` has all
QUICK = (
    replace(measured.setting(4, 1024, 512, 8, "bfloat16", compiled=False), tight=True),
    replace(
        measured.setting(4, 1024, 512, 8, "float32", compiled=False, activation_checkpoint=True), tight=True
    ),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize("setting", QUICK, ids=["bfloat16", "recomputing"])
def test_the_plan_is_what_the_trainer_takes(setting: Setting, home: Path) -> None:
    measured.prepare(home, setting.vocab_size)
    assert peak_memory(setting).total == pytest.approx(measured.measured_peak(setting, home), rel=0.10)


def test_what_is_copied_from_other_modules_is_still_the_same() -> None:
    assert (ATTENTION_BLOCK, ATTENTION_LONGEST) == (attention.BLOCK, attention.LONGEST)
    assert (CHUNK_BYTES, GRAD_CACHED) == (loss.CHUNK_BYTES, loss.GRAD_CACHED)
    for vocab_size in (512, 8192, 50304, 65536):
        for device in ("cpu", "cuda"):
            setting = Setting(4, vocab_size, 2048, 32, device=device)
            rows = min(setting.tokens, loss.chunk_rows(vocab_size, setting.width, device))
            assert setting.chunk_rows == rows


BASE = Setting(12, 32768, 2048, 8)


@pytest.mark.parametrize(
    "more",
    [
        {"device_batch_size": 16},
        {"seq_len": 4096},
        {"vocab_size": 65536},
        {"depth": 14},
        {"dtype": "float32"},
        {"value_embeddings": True},
    ],
    ids=str,
)
def test_what_is_larger_takes_more(more: dict[str, object]) -> None:
    assert peak_memory(replace(BASE, **more)).total > peak_memory(BASE).total


def test_recomputing_and_a_second_rank_take_less() -> None:
    assert peak_memory(replace(BASE, activation_checkpoint=True)).total < peak_memory(BASE).total / 2
    assert peak_memory(replace(BASE, ranks=2)).optimizer < peak_memory(BASE).optimizer * 0.51


def test_the_parts_add_up_to_the_total() -> None:
    memory = peak_memory(BASE).to_dict()
    assert memory.pop("total") == sum(memory.values())


def test_checkpoints_count_on_a_cpu_only() -> None:
    here = replace(BASE, device="cpu")
    saving = replace(here, saves_while_training=True)
    assert peak_memory(saving).total - peak_memory(here).total == 8 * 12 * 768**2 * 12 + 12 * 2 * 32768 * 768
    assert peak_memory(replace(BASE, saves_while_training=True)) == peak_memory(BASE)


def test_a_tight_heap_wastes_nothing() -> None:
    here = Setting(8, 8192, 512, 8, device="cpu", compiled=False)
    assert heap_bytes(here) > 0 == heap_bytes(replace(here, tight=True))
    assert "checkpoint" in moments(here) and "checkpoint" not in moments(replace(here, runtime=False))


def test_the_field_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["field"]) == 0
    assert "| known | 19.00" in capsys.readouterr().out


def test_planning_loads_no_torch() -> None:
    code = "import sys, nanochat.planner.dry; print([n for n in ('torch', 'numpy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
