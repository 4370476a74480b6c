from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from nanochat.events import EventLog
from nanochat.schedule import (
    flops_per_token,
    muon_momentum,
    total_params,
    training_steps,
    warmup_stable_decay,
)


def test_the_learning_rate_rises_stays_and_falls_to_the_final_fraction() -> None:
    rates = [warmup_stable_decay(step, 100, 0.1, 0.2, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == 1.0
    assert set(rates[9:81]) == {1.0}
    assert rates[90] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[80:]))


def test_momentum_warms_up_over_300_steps() -> None:
    assert muon_momentum(0) == 0.85
    assert muon_momentum(150) == pytest.approx(0.90)
    assert muon_momentum(300) == muon_momentum(9999) == 0.95


@pytest.mark.parametrize(("depth", "millions"), [(4, 36.7), (8, 92.3), (12, 185.6), (16, 335.5), (20, 561.0)])
def test_parameter_counts_are_those_of_the_field(depth: int, millions: float) -> None:
    assert total_params(depth, 65536) / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_horizon_takes_the_first_rule_that_is_set() -> None:
    common = {"depth": 4, "vocab_size": 8192, "seq_len": 512, "total_batch_tokens": 8192}
    off = {"num_iterations": -1, "target_flops": -1.0, "target_param_data_ratio": 20.0}
    assert training_steps(**{**off, "num_iterations": 7}, **common) == 7
    per_step = flops_per_token(4, 8192, 512) * 8192
    assert training_steps(**{**off, "target_flops": per_step * 12.0}, **common) == 12
    assert training_steps(**off, **common) == 20 * total_params(4, 8192) // 8192


def test_events_are_whole_lines_of_standard_json(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "events.jsonl"
    log = EventLog(file)
    log.metric(3, train__loss=float("nan"), train__tok_per_sec=10.0)
    log.emit("warning", message="naïve\nnewline")
    log.close()
    EventLog(None).metric(1, train__loss=1.0)  # another rank: says nothing
    lines = [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]
    assert lines[0]["values"] == {"train/loss": None, "train/tok_per_sec": 10.0}
    assert (lines[0]["kind"], lines[0]["step"]) == ("metric", 3)
    assert lines[1]["message"] == "naïve\nnewline"
