"""Pretraining by real processes: it learns, resumes exactly, stops when asked, and fails with a reason."""

from __future__ import annotations

import errno
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat.checkpoint import find_checkpoints, load_model, read_meta, verify
from nanochat.gpt import GPT
from tests.nanochat.trainers import Home

SLOW = {"num_iterations": 100_000}  # steps enough to be caught in the middle


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.train_tokenizer().code == 0
    return home


@pytest.mark.parametrize("ranks", [1, 2])
def test_after_kill_9_a_run_goes_on_with_the_same_losses(home: Home, ranks: int) -> None:
    config = home.base_config(save_every=4, resume_from="auto", processes=ranks)
    whole = home.run("scripts.base_train", config, run=f"whole{ranks}", ranks=ranks)
    assert whole.code == 0, whole.log
    expected = whole.losses()
    assert len(expected) == 12 and expected[12] < expected[1] < math.log(300) + 0.1

    run = f"killed{ranks}"
    killed = home.start("scripts.base_train", config, run=run, ranks=ranks)
    killed.until(lambda attempt: len(attempt.events("checkpoint")) >= 1)
    killed.kill_everything()
    assert not killed.events("end") or killed.events("end")[0]["step"] == 12
    resumed = home.run("scripts.base_train", config, run=run, attempt=2, ranks=ranks)
    assert resumed.code == 0, resumed.log
    phase = resumed.events("phase")[-1]
    assert phase["phase"] == "resume" and phase["step"] in (4, 8, 12) and phase["steps"] == 12
    assert {**killed.losses(), **resumed.losses()} == expected


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_stopped_run_saves_and_leaves(home: Home, ranks: int) -> None:
    run = f"stopped{ranks}"
    attempt = home.start(
        "scripts.base_train", home.base_config(processes=ranks, **SLOW), run=run, ranks=ranks
    )
    attempt.until(lambda attempt: len(attempt.losses()) >= 2)
    attempt.process.send_signal(signal.SIGTERM)
    attempt.wait()
    end = attempt.events("end")[-1]
    assert end["status"] == "stopped" and end["peak_bytes"] > 0
    saved = find_checkpoints(home.base / "base_checkpoints", run)
    assert [int(path.name[5:]) for path in saved] == [end["step"]]
    assert attempt.failure is None
    if ranks == 1:
        assert attempt.code == 0


def test_ctrl_c_stops_like_sigterm(home: Home) -> None:
    attempt = home.start("scripts.base_train", home.base_config(**SLOW), run="ctrlc")
    attempt.until(lambda attempt: len(attempt.losses()) >= 1)
    os.kill(attempt.process.pid, signal.SIGINT)
    assert attempt.wait() == 0
    assert attempt.events("end")[-1]["status"] == "stopped"


def test_a_checkpoint_tells_where_it_comes_from_and_loads(home: Home) -> None:
    config = home.base_config(eval_every=3, eval_tokens=256, num_iterations=3)
    attempt = home.run("scripts.base_train", config, run="meta")
    assert attempt.code == 0, attempt.log
    first, second = attempt.events("checkpoint")
    assert (first["step"], first["stage"], first["path"]) == (3, "base", "base_checkpoints/meta/step_000003")
    assert (
        first["model"]["n_layer"] == 1 and "val/bpb" not in first["metrics"]
    )  # saved before it was evaluated
    assert 0 < second["metrics"]["val/bpb"] < 10 and second["sha256"] == first["sha256"]
    model, tokenizer, meta = load_model(home.base / first["path"])
    assert (model.cfg.vocab_size, meta["config"]["num_iterations"]) == (tokenizer.vocab_size, 3)
    assert meta["tokenizer"]["path"] == "tokenizer/tok"
    kinds = [event["phase"] for event in attempt.events("phase")]
    assert kinds == ["data", "train"]


def test_every_metric_of_the_contract_is_there(home: Home) -> None:
    attempt = home.run("scripts.base_train", home.base_config(num_iterations=2), run="metrics")
    metrics = attempt.events("metric")
    assert set(metrics[0]["values"]) == {
        "train/loss", "train/grad_norm", "train/lrm", "train/dt_ms", "train/tok_per_sec", "train/tokens",
        "train/opt_ms",
    }  # fmt: skip
    assert metrics[1]["values"]["train/tokens"] == 256
    assert metrics[-1]["values"]["mem/peak_bytes"] > 1e6


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loss_that_explodes_fails_with_its_reason(home: Home, ranks: int) -> None:
    config = home.base_config(matrix_lr=10.0, embedding_lr=10.0, unembedding_lr=10.0, grad_clip=0.0, **SLOW)
    config |= {"dtype": "float32", "processes": ranks, "weight_decay": 10.0}
    attempt = home.run("scripts.base_train", config, run=f"nan{ranks}", ranks=ranks)
    assert attempt.code != 0
    assert attempt.failure is not None and attempt.failure["reason"] == "nan_loss", attempt.log[-2000:]
    assert "learning rates" in attempt.failure["message"]


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"data": "nowhere"}, "data_error", "no corpus 'nowhere'"),
        ({"tokenizer": "tokenizer/none"}, "data_error", "does not exist"),
        ({"resume_from": "7"}, "data_error", "no checkpoint step_000007"),
        ({"resume_from": "tokenizer"}, "data_error", "is no checkpoint"),
    ],
)
def test_bad_inputs_fail_with_reason_and_remedy(
    home: Home, change: dict[str, str], reason: str, words: str
) -> None:
    attempt = home.run("scripts.base_train", home.base_config(**change), run="bad", attempt=len(words))
    assert attempt.code != 0
    assert attempt.failure is not None and attempt.failure["reason"] == reason
    assert words in attempt.failure["message"]


def test_a_checkpoint_of_another_depth_is_not_resumed(home: Home) -> None:
    home.run("scripts.base_train", home.base_config(num_iterations=1), run="depth")
    other = home.base_config(num_iterations=1, depth=2, resume_from="auto")
    attempt = home.run("scripts.base_train", other, run="depth", attempt=2)
    assert attempt.failure is not None and attempt.failure["reason"] == "config_error"
    assert "depth is 2" in attempt.failure["message"]


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(home: Home) -> None:
    config = home.base_config(num_iterations=4, save_every=2, resume_from="auto")
    home.run("scripts.base_train", config, run="damaged")
    first, last = find_checkpoints(home.base / "base_checkpoints", "damaged")
    (last / "model.safetensors").write_bytes(b"nothing")
    again = home.run("scripts.base_train", config, run="damaged", attempt=2)
    assert again.code == 0, again.log
    assert "damaged" in again.events("warning")[0]["message"]
    assert again.events("phase")[-1]["step"] == int(first.name[5:])


def test_a_finished_run_that_is_resumed_trains_nothing_and_announces_its_checkpoint(home: Home) -> None:
    config = home.base_config(num_iterations=2, resume_from="auto")
    home.run("scripts.base_train", config, run="done")
    again = home.run("scripts.base_train", config, run="done", attempt=2)
    assert again.losses() == {} and again.events("end")[-1]["status"] == "succeeded"
    assert [event["step"] for event in again.events("checkpoint")] == [2]


def test_two_ranks_resume_what_one_rank_saved(home: Home) -> None:
    config = home.base_config(num_iterations=4, save_every=2, resume_from="auto")
    home.run("scripts.base_train", config, run="resized")
    place = find_checkpoints(home.base / "base_checkpoints", "resized")[-1]
    assert read_meta(place)["data"]["row"] == 4 * 128 // 32
    more = {**config, "num_iterations": 8, "warmdown_ratio": 0.0}
    whole = home.run("scripts.base_train", more, run="unresized")
    home.run("scripts.base_train", {**more, "num_iterations": 4}, run="resized2")
    again = home.run("scripts.base_train", {**more, "processes": 2}, run="resized2", attempt=2, ranks=2)
    assert again.code == 0, again.log
    assert sorted(again.losses()) == [5, 6, 7, 8]
    assert again.losses() == pytest.approx({step: whole.losses()[step] for step in (5, 6, 7, 8)}, abs=1e-3)


def test_ranks_and_micro_batches_do_not_change_what_a_step_learns(home: Home) -> None:
    """The same rows in the same steps: 1 × 4 × 1, 1 × 1 × 4, 2 × 2 × 1, 2 × 1 × 2 (ranks, rows, times)."""
    losses = []
    for ranks, rows in ((1, 4), (1, 1), (2, 2), (2, 1)):
        config = home.base_config(num_iterations=6, device_batch_size=rows, processes=ranks)
        attempt = home.run("scripts.base_train", config, run=f"cut{ranks}x{rows}", ranks=ranks)
        assert attempt.code == 0, attempt.log
        losses.append(attempt.losses())
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], abs=1e-3)


def test_out_of_memory_halves_the_micro_batch_and_repeats_the_step(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = home.base_config(num_iterations=6, device_batch_size=4)
    expected = home.run("scripts.base_train", config, run="enough").losses()
    whole, calls = GPT.hidden, []

    def hidden(self: GPT, ids_BT: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(len(ids_BT))
        if ids_BT.size(0) > 1 and len(calls) > 2:
            raise torch.OutOfMemoryError("injected")
        return whole(self, ids_BT, *rest)

    monkeypatch.setattr(GPT, "hidden", hidden)
    attempt = home.run("scripts.base_train", config, run="toolittle")
    assert attempt.code == 0, attempt.log
    assert calls[:5] == [4, 4, 4, 2, 1] and set(calls[5:]) == {1}
    assert attempt.losses() == pytest.approx(expected, abs=1e-4)
    first, second = [event["message"] for event in attempt.events("warning")]
    assert "device_batch_size 2 and 2 micro-batches" in first and "device_batch_size 1 and 4" in second


def test_memory_that_no_halving_can_save_is_an_error_that_says_so(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("injected")

    monkeypatch.setattr(GPT, "hidden", hidden)
    attempt = home.run("scripts.base_train", home.base_config(device_batch_size=4), run="hopeless")
    assert attempt.failure is not None and attempt.failure["reason"] == "cuda_oom"
    assert "after 2 halvings" in attempt.failure["message"]


def test_one_rank_out_of_memory_takes_the_other_along(home: Home, tmp_path: Path) -> None:
    """A real second rank: it must not wait for ever in a reduction, and both must go on with half."""
    (tmp_path / "sitecustomize.py").write_text(INJECT)
    config = home.base_config(num_iterations=4, device_batch_size=2, processes=2)
    expected = home.run("scripts.base_train", config, run="both", ranks=2).losses()
    attempt = home.run("scripts.base_train", config, run="one", ranks=2, path=tmp_path)
    assert attempt.code == 0, attempt.log
    assert "device_batch_size 1 and 2 micro-batches" in attempt.events("warning")[0]["message"]
    assert attempt.losses() == pytest.approx(expected, abs=1e-4)


INJECT = """
import os, sys, importlib.abc, importlib.util
class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "nanochat.train.base":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            whole, calls = module.micro_loss, []
            def micro_loss(*args):
                calls.append(1)
                if os.environ["RANK"] == "1" and len(calls) == 4:
                    raise __import__("torch").OutOfMemoryError("injected")
                return whole(*args)
            module.micro_loss = micro_loss
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Hook())
"""


def test_a_bad_step_is_skipped_and_recorded(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    config = home.base_config(num_iterations=6)
    whole, calls = GPT.hidden, []

    def hidden(self: GPT, ids_BT: torch.Tensor, *rest: Any) -> torch.Tensor:
        calls.append(1)
        return whole(self, ids_BT, *rest) * (math.nan if len(calls) == 5 else 1.0)

    monkeypatch.setattr(GPT, "hidden", hidden)
    attempt = home.run("scripts.base_train", config, run="onenan")
    assert attempt.code == 0, attempt.log
    losses = attempt.losses()
    assert [step for step, loss in losses.items() if loss is None] == [3]  # two micro-batches a step
    assert losses[6] < losses[1]
    (warning,) = attempt.events("warning")
    assert warning["step"] == 3 and "the loss is nan" in warning["message"]
    assert any(event["values"].get("train/skipped") == 1 for event in attempt.events("metric"))


def test_after_a_bad_step_a_run_can_go_back_and_on_with_other_data(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = home.base_config(num_iterations=8, save_every=2, bad_steps="rollback", total_batch_size=64)
    whole, seen = GPT.hidden, []

    def hidden(self: GPT, ids_BT: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(ids_BT.clone())
        return whole(self, ids_BT, *rest) * (math.nan if len(seen) == 4 else 1.0)

    monkeypatch.setattr(GPT, "hidden", hidden)
    attempt = home.run("scripts.base_train", config, run="goneback")
    assert attempt.code == 0, attempt.log
    steps = [event["step"] for event in attempt.events("metric") if "train/loss" in event["values"]]
    assert steps == [1, 2, 3, 4, 3, 4, 5, 6, 7, 8]
    assert [event["step"] for event in attempt.events("phase")] == [0, 0, 2]
    assert len({ids.numpy().tobytes() for ids in seen}) == 10  # no row was read twice, the bad one neither
    assert all(loss is not None for loss in attempt.losses().values())
    (place,) = [p for p in find_checkpoints(home.base / "base_checkpoints", "goneback") if "8" in p.name]
    assert read_meta(place)["progress"]["rollbacks"] == 1
    assert read_meta(place)["progress"]["tokens"] == 8 * 64


def test_only_as_many_checkpoints_stay_as_asked_for(home: Home) -> None:
    config = home.base_config(num_iterations=8, save_every=1, keep_last=2, keep_every=3)
    attempt = home.run("scripts.base_train", config, run="few")
    assert attempt.code == 0, attempt.log
    kept = [int(path.name[5:]) for path in find_checkpoints(home.base / "base_checkpoints", "few")]
    assert kept == [3, 6, 7, 8]
    removed = [event["step"] for event in attempt.events("checkpoint") if event.get("removed")]
    assert removed == [1, 2, 4, 5]


def test_a_checkpoint_is_told_with_its_own_step_and_what_was_measured_of_it_alone(home: Home) -> None:
    config = home.base_config(num_iterations=11, save_every=1, keep_last=0, eval_every=4, eval_tokens=64)
    attempt = home.run("scripts.base_train", config, run="told")
    assert attempt.code == 0, attempt.log
    told: dict[int, list[bool]] = {}
    for event in attempt.events("checkpoint"):
        assert event["path"] == f"base_checkpoints/told/step_{event['step']:06d}"
        told.setdefault(event["step"], []).append("val/bpb" in event["metrics"])
    assert told == {step: [False, True] if step in (4, 8, 11) else [False] for step in range(1, 12)}


def test_the_best_checkpoint_stays_also_over_a_resume(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    bpb = iter([3.0, 1.0, 2.0, 2.5, 2.25, 2.125])
    monkeypatch.setattr("nanochat.train.base.bits_per_byte", lambda *_: next(bpb))
    config = home.base_config(save_every=1, keep_last=1, keep_best="val/bpb", eval_every=2, eval_tokens=64)
    config |= {"resume_from": "auto", "warmdown_ratio": 0.0}
    for steps, attempt in ((6, 1), (12, 2)):
        done = home.run(
            "scripts.base_train", {**config, "num_iterations": steps}, run="best", attempt=attempt
        )
        assert done.code == 0, done.log
        kept = [int(path.name[5:]) for path in find_checkpoints(home.base / "base_checkpoints", "best")]
        assert kept == [4, steps]
    first = done.events("checkpoint")[0]
    assert (first["step"], first["metrics"]["val/bpb"]) == (6, 2.0), (
        "told again, with what was measured of it"
    )


def test_a_new_run_neither_overwrites_nor_removes_another_runs_checkpoints(home: Home) -> None:
    config = home.base_config(num_iterations=4, save_every=2)
    home.run("scripts.base_train", config, run="twice")
    old = [path.name for path in find_checkpoints(home.base / "base_checkpoints", "twice")]
    again = home.run("scripts.base_train", {**config, "num_iterations": 1, "keep_last": 1}, run="twice")
    assert again.code == 0, again.log
    assert [path.name for path in find_checkpoints(home.base / "base_checkpoints", "twice")] == [
        "step_000001"
    ]
    (aside,) = (home.base / "base_checkpoints").glob("twice.until-*")
    assert [path.name for path in find_checkpoints(aside.parent, aside.name)] == old
    assert any(str(aside) in event["message"] for event in again.events("warning"))


def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = home.base_config(num_iterations=2)
    assert home.run("scripts.base_train", config, run="full").code == 0
    monkeypatch.setattr("nanochat.checkpoint.save_file", full)
    more = {**config, "num_iterations": 6, "save_every": 1, "resume_from": "auto"}
    attempt = home.run("scripts.base_train", more, run="full", attempt=2)
    assert attempt.failure is not None and attempt.failure["reason"] == "disk_full"
    (place,) = find_checkpoints(home.base / "base_checkpoints", "full")
    assert place.name == "step_000002" and verify(place)
    assert not list(place.parent.glob("*.tmp"))


def test_rows_that_begin_with_a_document_train_and_resume(home: Home) -> None:
    config = home.base_config(packing="bos", num_iterations=6, save_every=3, resume_from="auto")
    whole = home.run("scripts.base_train", config, run="packed").losses()
    home.run("scripts.base_train", {**config, "num_iterations": 3, "warmdown_ratio": 0.0}, run="packed2")
    again = home.run("scripts.base_train", config, run="packed2", attempt=2).losses()
    assert list(again) == [4, 5, 6]
    assert again[4] == pytest.approx(whole[4], abs=0.2)  # the schedule of the first part differs


def test_from_an_empty_directory_corpus_and_tokenizer_are_made(tmp_path: Path) -> None:
    home = Home(tmp_path)
    attempt = home.run(
        "scripts.base_train", home.base_config(num_iterations=1, processes=2), run="first", ranks=2
    )
    assert attempt.code == 0, attempt.log
    assert attempt.log.count("training one with 4,096 tokens") == 1
    assert (tmp_path / "tokenizer" / "latest").resolve().name == "v4096"
