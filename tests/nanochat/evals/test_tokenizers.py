"""tok_eval: bytes per token, and a token_bytes.pt of another tokenizer is found out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.nanochat.trainers import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    assert home.train_tokenizer().code == 0
    return home


def test_domains_are_measured_beside_the_other_tokenizers_here(home: Home) -> None:
    larger = {"vocab_size": 310, "data": str(home.corpus)}
    assert home.run("scripts.tok_train", larger, run="larger").code == 0
    attempt = home.run("scripts.tok_eval", {"data": str(home.corpus)}, run="measured")
    assert attempt.code == 0, attempt.log
    (event,) = attempt.events("eval")
    assert event["name"] == "tok_eval" and event["details"]["checkpoint"] == "tokenizer/larger"
    values, other = event["values"], event["details"]["others"]["tokenizer/tok"]
    assert set(values) == {"train", "val", "prose", "code", "mathematics", "german", "chinese"}
    assert values["train"] > other["train"] > 1 and values["train"] > values["chinese"] >= 1
    assert event["details"]["token_bytes"] == "310 entries agree with tokenizer.json"
    assert "gpt2" in attempt.log and attempt.events("end")[-1]["status"] == "succeeded"


@pytest.mark.parametrize("damage", ["other", "missing"])
def test_wrong_token_bytes_are_found_out(home: Home, damage: str) -> None:
    file = home.base / "tokenizer" / "tok" / "token_bytes.pt"
    stored = torch.load(file, weights_only=True)
    file.unlink()
    if damage == "other":
        torch.save(stored + (stored == 2), file)
    config = {"data": str(home.corpus), "tokenizer": "tokenizer/tok"}
    attempt = home.run("scripts.tok_eval", config, run="wrong")
    assert attempt.failure is not None and attempt.failure["reason"] == "data_error"
    assert "token_bytes.pt" in attempt.failure["message"]


def test_without_a_tokenizer_it_says_what_to_run(tmp_path: Path) -> None:
    attempt = Home(tmp_path).run("scripts.tok_eval", {}, run="nothing")
    assert attempt.failure is not None and "scripts.tok_train" in attempt.failure["message"]
