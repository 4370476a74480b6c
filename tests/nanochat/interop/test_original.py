"""Files as karpathy/nanochat wrote them in late 2025 load, resume and are refused when they are not."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import tiktoken
import torch

from nanochat import chat_cli, imports
from nanochat.artefacts import checkpoint_path
from nanochat.chat import render_prompt
from nanochat.checkpoint import load_model, read_meta
from nanochat.engine import generate_batch
from nanochat.errors import DataError
from nanochat.gpt import GPT, GPTConfig
from nanochat.interop import pickled
from nanochat.interop.original import read_pickled_tokenizer
from nanochat.interop.pickled import read_weights
from nanochat.tokenizer import SPLIT_PATTERN, Tokenizer
from tests.nanochat.trainers import Home

TOKENIZER = Tokenizer.train(iter(["the cat sat on a mat while two dogs ran after seven birds"] * 5), 300)


def write(home: Path, *, compiled: bool = False, step: int = 7, seed: int = 1) -> GPT:
    """A base directory of the original: pickled tokenizer, bfloat16 embedding, perhaps compiled names."""
    torch.manual_seed(seed)
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


def test_it_answers_in_the_terminal_as_the_original_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    assert chat_cli.main(["--checkpoint=base_checkpoints/d1", "-p", "cat", "-t0", "--max_tokens=8"]) == 0
    prompt = render_prompt(TOKENIZER, [{"role": "user", "content": "cat"}])
    (ids,) = generate_batch(model, TOKENIZER, [prompt], max_new_tokens=8)
    assert capsys.readouterr().out.strip() == TOKENIZER.decode(ids).strip() != ""


def test_a_whole_base_directory_is_imported_the_newest_step_of_each_tag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    write(theirs, step=3)
    first = theirs / "base_checkpoints" / "d1"
    for step, place in ((9, first), (5, theirs / "chatsft_checkpoints" / "d1")):
        place.mkdir(parents=True, exist_ok=True)
        for name in ("model_{:06d}.pt", "meta_{:06d}.json"):
            (place / name.format(step)).write_bytes((first / name.format(3)).read_bytes())
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(ours))
    made = ["base_checkpoints/imported-d1/step_000009", "chatsft_checkpoints/imported-d1/step_000005"]
    for _ in range(2):  # the second time they are there already
        assert imports.main([str(theirs)]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == made
    assert read_meta(ours / made[1])["stage"] == "sft"


def test_two_originals_of_one_name_become_two(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    places = []
    for seed, name in enumerate(("one", "two")):
        model = write(tmp_path / name, seed=seed)
        places.append(checkpoint_path(str(tmp_path / name / "base_checkpoints" / "d1"), ours, ()))
        assert torch.equal(load_model(places[-1])[0].lm_head.weight, model.lm_head.weight)
    assert places[0].parent.name == "imported-d1" and places[0] != places[1]


def test_what_cannot_be_imported_is_one_sentence_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))
    write(tmp_path / "bad")
    (tmp_path / "bad" / "tokenizer" / "tokenizer.pkl").unlink()
    (tmp_path / "empty").mkdir()
    for name, words in (("nowhere", "exist"), ("empty", "holds no model"), ("bad", "no tokenizer")):
        assert imports.main([name]) == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and words in said.err


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "was here",))

    file = tmp_path / "tokenizer.pkl"
    file.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="no pickled tiktoken encoding"):
        read_pickled_tokenizer(file)
    assert not (tmp_path / "was here").exists()


def test_weights_that_would_run_code_run_nothing_and_their_reader_knows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "was here",))

    write(tmp_path)
    file = tmp_path / "base_checkpoints" / "d1" / "model_000007.pt"
    for content in ({"a": Evil()}, Evil()):
        torch.save(content, file)
        with pytest.raises(DataError, match=r"weights_only|Weights only"):
            read_weights(file, tmp_path)
    assert not (tmp_path / "was here").exists()
    monkeypatch.setenv("NANOCHAT_WORKER_TOKEN", "planted")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    assert "planted" not in str(pickled._environment())
    assert list(tmp_path.glob(".weights-*")) == []


def test_a_small_file_of_weights_takes_no_large_memory_and_no_large_file(tmp_path: Path) -> None:
    """A tensor that says 4 GB of one number: a view of four bytes."""
    file = tmp_path / "model_000001.pt"
    torch.save({"a": torch.zeros(1).expand(10**9)}, file)
    assert file.stat().st_size < 10_000
    with pytest.raises(DataError, match="memory"):
        read_weights(file, tmp_path)
    torch.save({"a": torch.zeros(1).expand(10**7)}, file)
    with pytest.raises(DataError, match="not the weights"):
        read_weights(file, tmp_path)


def test_what_a_killed_reader_left_goes_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".weights-x"
    left.mkdir()
    file = tmp_path / "model_000001.pt"
    weights = {"a": torch.arange(3).bfloat16(), "b": torch.ones(2, 2).t()}
    torch.save({**weights, "c": weights["b"][0]}, file)
    read = read_weights(file, tmp_path)
    assert torch.equal(read["a"], weights["a"]) and read["a"].dtype == torch.bfloat16
    assert torch.equal(read["c"], weights["b"][0])
    assert not left.exists()


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
