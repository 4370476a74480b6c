"""Files as karpathy/nanochat wrote them in late 2025 load, resume and are refused when they are not."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import tiktoken
import torch

from nanochat.artefacts import checkpoint_path
from nanochat.checkpoint import load_model, read_meta
from nanochat.errors import DataError
from nanochat.gpt import GPT, GPTConfig
from nanochat.interop.original import read_pickled_tokenizer
from nanochat.tokenizer import SPLIT_PATTERN, Tokenizer
from tests.nanochat.trainers import Home

TOKENIZER = Tokenizer.train(iter(["the cat sat on a mat while two dogs ran after seven birds"] * 5), 300)


def write(home: Path, *, compiled: bool = False, step: int = 7) -> GPT:
    """A base directory of the original: pickled tokenizer, bfloat16 embedding, perhaps compiled names."""
    torch.manual_seed(1)
    encoding = tiktoken.Encoding(
        "rustbpe", pat_str=SPLIT_PATTERN, mergeable_ranks=TOKENIZER.ranks, special_tokens=TOKENIZER.specials
    )
    (home / "tokenizer").mkdir(parents=True)
    (home / "tokenizer" / "tokenizer.pkl").write_bytes(pickle.dumps(encoding))
    cfg = GPTConfig(32, TOKENIZER.vocab_size, 1, 1, 1, 64)
    model = GPT(cfg)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1)
        embedding = model.get_parameter("transformer.wte.weight")
        embedding.copy_(embedding.bfloat16())
    place = home / "base_checkpoints" / "d1"
    place.mkdir(parents=True)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["transformer.wte.weight"] = state["transformer.wte.weight"].bfloat16()
    torch.save({f"{'_orig_mod.' * compiled}{k}": v for k, v in state.items()}, place / f"model_{step:06d}.pt")
    meta = {
        "step": step,
        "val_bpb": 1.25,
        "model_config": {**cfg.to_dict(), "activation_checkpoint": False},
        "user_config": {"total_batch_size": 128},
    }
    (place / f"meta_{step:06d}.json").write_text(json.dumps(meta))
    return model


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("named", ["base_checkpoints/d1", "base_checkpoints/d1/model_000007.pt"])
def test_it_loads_with_the_same_logits(tmp_path: Path, compiled: bool, named: str) -> None:
    model = write(tmp_path, compiled=compiled)
    place = checkpoint_path(named, tmp_path, ("base",))
    again, tokenizer, meta = load_model(place)
    ids = torch.randint(0, TOKENIZER.vocab_size, (2, 20))
    assert torch.equal(again(ids), model(ids))
    assert tokenizer.encode("the cat") == TOKENIZER.encode("the cat")
    assert (meta["stage"], meta["step"], meta["metrics"]) == ("base", 7, {"val/bpb": 1.25})
    assert checkpoint_path(named, tmp_path, ("base",)) == place  # not copied twice


def test_a_run_goes_on_from_it(tmp_path: Path) -> None:
    write(tmp_path, step=2)
    home = Home(tmp_path)
    config = home.base_config(num_iterations=5, resume_from="base_checkpoints/d1")
    attempt = home.run("scripts.base_train", config, run="further")
    assert attempt.code == 0, attempt.log
    assert list(attempt.losses()) == [3, 4, 5]
    place = checkpoint_path("base_checkpoints/further", tmp_path, ("base",))
    assert read_meta(place)["data"]["row"] == 5 * 128 // 32


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "was here",))

    file = tmp_path / "tokenizer.pkl"
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="no pickled tiktoken encoding"):
        read_pickled_tokenizer(file)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("base_checkpoints/d1/meta_000007.json", "not the description"),
        ("base_checkpoints/d1/model_000007.pt", "not the weights"),
        ("tokenizer/tokenizer.pkl", "no tokenizer/tokenizer.pkl"),
    ],
)
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, spoil: str, words: str) -> None:
    write(tmp_path)
    if spoil.endswith("pkl"):
        (tmp_path / spoil).unlink()
    else:
        (tmp_path / spoil).write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(DataError, match=words):
        checkpoint_path("base_checkpoints/d1", tmp_path, ("base",))
