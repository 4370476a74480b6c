"""`arch: modern`: what it sets, that it learns, goes on exactly, and is told from classic."""

from __future__ import annotations

import pytest

from nanochat.checkpoint import find_checkpoints, read_meta
from nanochat.configurator import validate
from nanochat.export import main as export
from nanochat.stages import STAGES
from nanochat.stages.base import MODERN, BaseConfig
from tests.nanochat.trainers import Home

CONFIG = {"arch": "modern", "num_iterations": 12, "save_every": 4, "lr_batch_tokens": 512}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.train_tokenizer().code == 0
    return home


def test_it_is_a_set_of_defaults_that_single_values_override() -> None:
    classic, modern = BaseConfig(), BaseConfig(arch="modern")
    changed = {name for name in BaseConfig.model_fields if getattr(classic, name) != getattr(modern, name)}
    assert changed == {*MODERN, "arch"}
    one = BaseConfig(arch="modern", value_embeddings=False)
    assert (one.value_embeddings, one.residual_scalars) == (False, True)
    stored = modern.model_dump(mode="json")  # what a run keeps as its config means the same when read again
    assert validate(STAGES["base"], stored, 1) == modern


@pytest.mark.parametrize("ranks", [1, 2])
def test_it_learns_and_goes_on_with_the_same_losses(home: Home, ranks: int) -> None:
    config = home.base_config(**CONFIG, processes=ranks)
    whole = home.run("scripts.base_train", config, run=f"modern{ranks}", ranks=ranks)
    assert whole.code == 0, whole.log
    expected = whole.losses()
    assert expected[12] < expected[1] - 0.5
    again = home.run(
        "scripts.base_train", {**config, "resume_from": "4"}, run=f"modern{ranks}", attempt=2, ranks=ranks
    )
    assert again.code == 0, again.log
    assert again.losses() == {step: loss for step, loss in expected.items() if step > 4}


def test_a_classic_checkpoint_is_not_resumed_as_modern(home: Home) -> None:
    home.run("scripts.base_train", home.base_config(num_iterations=1), run="classic")
    config = home.base_config(**CONFIG, resume_from="auto")
    attempt = home.run("scripts.base_train", config, run="classic", attempt=2)
    assert attempt.failure is not None and attempt.failure["reason"] == "config_error"
    assert "residual_scalars is True" in attempt.failure["message"]


def test_it_is_not_exported_to_transformers(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.run("scripts.base_train", home.base_config(**{**CONFIG, "num_iterations": 1}), run="noexport")
    (place,) = find_checkpoints(home.base / "base_checkpoints", "noexport")
    assert read_meta(place)["model_config"]["value_embeddings"] is True
    assert export([str(place), "--out", str(home.base / "out")]) == 1
    assert "transformers does not know" in capsys.readouterr().err
    assert not (home.base / "out").exists()


def test_the_total_batch_can_be_left_to_the_depth() -> None:
    cfg = BaseConfig(depth=12, total_batch_size=-1, device_batch_size=10, max_seq_len=2048)
    assert cfg.step_tokens(2) == round(2**19 / (10 * 2048 * 2)) * 10 * 2048 * 2
    assert cfg.problems(2) == []
    assert BaseConfig(depth=24, total_batch_size=-1).step_tokens(1) == 2**19
    assert BaseConfig(depth=32, total_batch_size=-1).step_tokens(1) == 2**20
    assert BaseConfig(depth=12, total_batch_size=4096 * 64).step_tokens(2) == 4096 * 64


def test_a_run_whose_batch_is_left_to_the_depth_trains(home: Home) -> None:
    config = home.base_config(num_iterations=1, total_batch_size=-1, device_batch_size=1024)
    attempt = home.run("scripts.base_train", config, run="auto")
    assert attempt.code == 0, attempt.log
    (tokens,) = [
        event["values"]["train/tokens"]
        for event in attempt.events("metric")
        if "train/tokens" in event["values"]
    ]
    assert tokens == BaseConfig(
        depth=1, total_batch_size=-1, device_batch_size=1024, max_seq_len=32
    ).step_tokens(1)
