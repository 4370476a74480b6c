"""The short version of `make bench-kills`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nanochat.train.kills import campaign
from tests.nanochat.trainers import Home


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_again_and_again_a_training_repeats_every_loss_bit_for_bit(tmp_path: Path, ranks: int) -> None:
    home = Home(tmp_path)
    assert home.train_tokenizer().code == 0
    outcome = campaign(home, ranks=ranks, kills=2, seed=5)
    assert outcome.kills >= 1  # on a slow machine the last one may come too late
    assert outcome.first_differing_step is None and outcome.same_weights
