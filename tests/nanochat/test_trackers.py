"""What a training hands to Weights & Biases and TensorBoard, read back from the files both write."""

from __future__ import annotations

import json
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.stages import STAGES
from nanochat.trackers import Nothing, Tracker, Trackers, open_trackers
from tests.nanochat.trainers import DEADLINE_S, Home


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Weights & Biases that asks no server and leaves nothing behind but files."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()


def wandb_records(base: Path) -> list[object]:
    """Every record of the one offline run below `base`."""
    from wandb.proto import wandb_internal_pb2

    (file,) = base.glob("wandb/offline-run-*/*.wandb")
    return [wandb_internal_pb2.Record.FromString(body) for body in log_records(file.read_bytes()[7:], 7)]


def log_records(data: bytes, at: int) -> Iterator[bytes]:
    """Records of a LevelDB log: pieces behind 7 bytes of header, in blocks of 32 KiB of the file."""
    body, position = b"", 0
    while position + 7 <= len(data):
        room = 32768 - (at + position) % 32768
        if room < 7:
            position += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        body += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield body
            body = b""


def wandb_history(base: Path, count: int) -> list[dict[str, float]]:
    """The rows of the history, once there are `count`: wandb's own process may write on for a moment."""
    end = time.monotonic() + DEADLINE_S
    while len(rows := history_now(base)) < count and time.monotonic() < end:
        time.sleep(0.05)
    return rows


def history_now(base: Path) -> list[dict[str, float]]:
    rows = []
    for record in wandb_records(base):
        if record.WhichOneof("record_type") == "history":  # type: ignore[attr-defined]
            items = record.history.item  # type: ignore[attr-defined]
            rows.append(
                {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}
            )
    return rows


def tensorboard_scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory)).Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.usefixtures("offline")
def test_a_training_tells_both_trackers_what_it_tells_its_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    home = Home(tmp_path)
    config = home.base_config(
        num_iterations=3, eval_every=3, eval_tokens=64, use_dummy_wandb=False, tensorboard=True, run="curve"
    )
    attempt = home.run("scripts.base_train", config, run="tracked")
    assert attempt.code == 0, attempt.log
    assert not [event for event in attempt.events("warning") if "without it" in event["message"]]
    told = [(event["step"], event["values"]) for event in attempt.events("metric")]

    rows = wandb_history(tmp_path, len(told))
    kept = [(row["step"], {k: v for k, v in row.items() if k != "step" and k[0] != "_"}) for row in rows]
    assert kept == told and "val/bpb" in told[3][1]
    (run,) = [record.run for record in wandb_records(tmp_path) if record.WhichOneof("record_type") == "run"]  # type: ignore[attr-defined]
    assert (run.project, run.display_name, run.run_group) == ("nanochat", "curve", "tracked")
    assert run.job_type == "base"
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert settings["num_iterations"] == 3

    scalars = tensorboard_scalars(tmp_path / "tensorboard" / "base" / "tracked")
    for name in ("train/loss", "val/bpb", "mem/peak_bytes"):
        expected = [(step, values[name]) for step, values in told if name in values]
        assert [step for step, _ in scalars[name]] == [step for step, _ in expected]
        assert [v for _, v in scalars[name]] == pytest.approx([v for _, v in expected], rel=1e-6)


def test_every_training_stage_writes_its_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    home = Home(tmp_path)
    few = {"tensorboard": True, "num_iterations": 2}
    chat = {"device": "cpu", "dtype": "float32", "eval_every": 0, "model_tag": "d1", "tasks": "sums", **few}
    options = {
        "base": home.base_config(max_seq_len=64, model_tag="d1", **few),
        "mid": {**chat, "device_batch_size": 2, "total_batch_size": 128, "task_examples": 64},
        "sft": {**chat, "task_examples": 64},
        "rl": {**chat, "examples_per_step": 2, "num_samples": 2, "max_new_tokens": 4},
    }
    for stage, config in options.items():
        attempt = home.run(STAGES[stage].script, config, run=stage)
        assert attempt.code == 0, attempt.log
        scalars = tensorboard_scalars(tmp_path / "tensorboard" / stage / "d1")
        told = [(step, value) for step, value in attempt.losses().items()]
        assert [step for step, _ in scalars["train/loss"]] == [1, 2]
        assert [v for _, v in scalars["train/loss"]] == pytest.approx([v for _, v in told], rel=1e-6)
        assert "mem/peak_bytes" in scalars


def test_tensorboard_hides_the_steps_that_a_resumed_run_repeats(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for made, steps in ((0, range(1, 7)), (3, range(4, 9))):
        tracker = tracker_of(tmp_path, [], tensorboard=True, step=made)
        for step in steps:
            tracker.log(step, {"x": float(step + 100 * made)})
        tracker.close()
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), *((step, step + 300.0) for step in range(4, 9))]
    assert tensorboard_scalars(tmp_path / "tensorboard" / "base" / "tag")["x"] == expected


def tracker_of(
    base: Path, warnings: list[str], *, wandb: bool = False, tensorboard: bool = False, step: int = 0
) -> Tracker:
    return open_trackers(
        wandb=wandb,
        tensorboard=tensorboard,
        name="name",
        stage="base",
        tag="tag",
        step=step,
        config={"depth": 1},
        base=base,
        warn=warnings.append,
    )


@pytest.mark.parametrize(("missing", "package"), [("wandb", "wandb"), ("tensorboard", "tensorboard")])
def test_a_missing_package_is_one_warning_that_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)  # importing it fails
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    warnings: list[str] = []
    tracker = tracker_of(tmp_path, warnings, wandb=missing == "wandb", tensorboard=missing == "tensorboard")
    tracker.log(1, {"x": 1.0})
    tracker.close()
    assert len(warnings) == 1 and f"`pip install {package}`" in warnings[0]


def test_weights_and_biases_without_a_key_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    warnings: list[str] = []
    tracker_of(tmp_path, warnings, wandb=True).close()
    wandb.teardown()
    assert len(warnings) == 1 and "training goes on without it" in warnings[0]


class Broken:
    """A tracker that takes one step and then raises whatever it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    def log(self, step: int, values: object) -> None:
        self.calls += 1
        if self.calls > 1:
            raise OSError("no space left")

    def close(self) -> None:
        raise OSError("still no space left")


def test_a_tracker_that_raises_is_left_out_with_one_warning_and_the_other_goes_on() -> None:
    class Listening(Nothing):
        steps: list[int] = []  # noqa: RUF012 - one instance

        def log(self, step: int, values: object) -> None:
            self.steps.append(step)

    warnings: list[str] = []
    trackers = Trackers(warnings.append)
    broken, listening = Broken(), Listening()
    trackers.add("broken", "broken", lambda: broken)
    trackers.add("listening", "listening", lambda: listening)
    for step in range(1, 6):
        trackers.log(step, {"x": 1.0})
    trackers.close()
    assert broken.calls == 2 and listening.steps == [1, 2, 3, 4, 5]
    assert len(warnings) == 1 and "no space left" in warnings[0]


def test_a_run_that_wants_no_tracker_imports_none(tmp_path: Path) -> None:
    assert isinstance(tracker_of(tmp_path, []), Nothing)
    assert list(tmp_path.iterdir()) == []
