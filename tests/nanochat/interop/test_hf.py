"""What transformers makes of an exported model: the same logits, the same text, the same chat."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nanochat.chat import render_prompt
from nanochat.checkpoint import save_checkpoint
from nanochat.engine import generate_batch
from nanochat.export import LEFT_ALONE, main
from nanochat.gpt import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")
TEXTS = [
    "Hello there, it's 12345 o'clock.",
    "naïve café — 你好 🙂",
    "  two  spaces\n\n\tand\r\ntabs ",
    "DON'T",
    "",
]
TOKENIZER = Tokenizer.train(iter(TEXTS * 3 + ["the cat sat on the mat " * 20]), 330)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(256, TOKENIZER.vocab_size, 3, 4, 2, 64))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.05)
    return model


@pytest.fixture(scope="module")
def exported(model: GPT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("export")
    save_checkpoint(place / "step_000001", model, TOKENIZER, {"stage": "sft", "step": 1})
    out = place / "hf"
    assert main([str(place / "step_000001"), "--out", str(out)]) == 0
    return out


def test_logits_agree_with_transformers(model: GPT, exported: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(exported)
    assert type(theirs).__name__ == "NanoChatForCausalLM"
    ids = torch.randint(0, TOKENIZER.vocab_size, (3, 200))
    with torch.no_grad():
        assert (model(ids) - theirs(ids).logits).abs().max() <= 1e-5


def test_greedy_text_agrees_with_transformers(model: GPT, exported: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs, tokenizer = (
        AutoModelForCausalLM.from_pretrained(exported),
        AutoTokenizer.from_pretrained(exported),
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the cat?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompt == render_prompt(TOKENIZER, messages)
    end = tokenizer.convert_tokens_to_ids("<|assistant_end|>")
    whole = theirs.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)
    out = [id for id in whole[0, len(prompt) :].tolist() if id != end]
    (mine,) = generate_batch(model, TOKENIZER, [prompt], max_new_tokens=24, temperature=0.0)
    assert mine[: len(out)] == out and len(out) > 0


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_splits_alike(exported: Path, text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == TOKENIZER.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer(text)["input_ids"] == [TOKENIZER.bos, *ids]
    assert tokenizer.bos_token_id == TOKENIZER.bos


def test_a_directory_with_files_is_not_overwritten(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(exported.parent / "step_000001"), "--out", str(exported)]) == 1
    assert "not empty" in capsys.readouterr().err


def test_a_new_directory_is_whole_or_not_there(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    before = sorted(exported.parent.iterdir())
    monkeypatch.setattr("nanochat.interop.hf.tokenizer_config", full)
    out = exported.parent / "new"
    assert main([str(exported.parent / "step_000001"), "--out", str(out)]) == 1
    assert sorted(exported.parent.iterdir()) == before


def test_an_empty_directory_is_filled(exported: Path, tmp_path: Path) -> None:
    assert main([str(exported.parent / "step_000001"), "--out", str(tmp_path), "--dtype", "bfloat16"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {file.name for file in exported.iterdir()}


def test_arch_modern_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = GPT(GPTConfig(16, TOKENIZER.vocab_size, 1, 1, 1, 32, residual_scalars=True))
    model.init_weights()
    save_checkpoint(tmp_path / "a" / "step_000001", model, TOKENIZER, {"stage": "base", "step": 1})
    assert main([str(tmp_path / "a" / "step_000001"), "--out", str(tmp_path / "out")]) == 1
    assert "arch: modern" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_in_the_background_it_leaves_with_who_started_it(exported: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "nanochat.export", str(exported.parent / "step_000001"), "--background"]
    process = subprocess.Popen([*argv, "--out", str(tmp_path / "out")], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()  # long before torch is imported
    assert process.wait(60) == LEFT_ALONE and not (tmp_path / "out").exists()


def test_no_checkpoint_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere", "--out", str(tmp_path / "x")]) == 1
    assert "does not exist" in capsys.readouterr().err
