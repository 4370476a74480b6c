"""What `make bench-overheads` measures, on a training too small to mean anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanochat import bench_overheads
from nanochat.train.saver import Saver
from tests.nanochat.trainers import Home


def _measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bench_overheads.Figures:
    for name, value in (("DEPTH", 1), ("SEQ", 32), ("BATCH", 2), ("VOCAB", 300)):
        monkeypatch.setattr(bench_overheads, name, value)
    monkeypatch.chdir(tmp_path)
    for name in ("NANOCHAT_BASE_DIR", "NANOCHAT_ATTEMPT_DIR"):
        monkeypatch.setenv(name, "")
    corpus = str(Home(tmp_path).corpus)
    return bench_overheads.measure(tmp_path, steps=25, save_every=20, total=128, data=corpus)


def test_every_figure_comes_from_a_real_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _measured(tmp_path, monkeypatch)
    assert (found.steps, found.saves) == (25 - bench_overheads.SKIPPED, 2)
    shares = (found.stall_share, found.event_share, found.loader_share)
    assert all(0 < share < 1 for share in shares)
    assert "≤ 2 %" in bench_overheads.table(found)


def test_without_a_step_that_no_write_disturbs_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Saver, "writing", True)
    with pytest.raises(ValueError, match="save less often"):
        _measured(tmp_path, monkeypatch)
