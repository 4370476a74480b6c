"""What trainers tell of their first batch: the text they read, and what the loss is taken of."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from nanochat.tokenizer import Tokenizer
from nanochat.train.first_batch import MAX_BYTES, MAX_PIECE, MAX_TOKENS, FirstBatch, Row, described, pieces
from tests.nanochat.trainers import Attempt, Home

TOKENIZER = Tokenizer.train(iter(["the cat sat on the mat"] * 20), 270)
BOS, END = TOKENIZER.bos, TOKENIZER.special("<|assistant_end|>")
COMMON = {"device": "cpu", "dtype": "float32", "eval_every": 0, "num_iterations": 2, "device_batch_size": 4}


def shown(*ids: int, counts: list[int] | None = None) -> list[str]:
    return [piece.text for piece in pieces(TOKENIZER, ids, counts or [1] * len(ids))]


def test_bytes_wait_for_the_rest_of_their_character() -> None:
    text = "the 你好 🙂"
    ids = TOKENIZER.encode(text)
    found = list(pieces(TOKENIZER, ids, [1] * len(ids)))
    assert "".join(piece.text for piece in found) == text
    assert [piece.text for piece in found][-4:] == ["你", "好", " ", "🙂"] and len(found[-1].ids) == 4
    assert list(chain.from_iterable(piece.ids for piece in found)) == ids


def test_bytes_that_are_no_text_are_escaped_one_by_one() -> None:
    first, second, third = TOKENIZER.encode("你")
    assert shown(second, third, ord("a")) == ["\\xbd", "\\xa0", "a"]
    assert shown(first, ord("a"), 0xFF) == ["\\xe4", "a", "\\xff"]
    assert shown(first, second) == ["\\xe4", "\\xbd"], "cut in the middle"
    assert shown(first, BOS, second) == ["\\xe4", "<|bos|>", "\\xbd"]
    assert shown(first, second, third, counts=[0, 1, 1]) == ["\\xe4", "\\xbd", "\\xa0"]
    assert shown(*[first, second, third] * 5) == ["你"] * 5


def test_special_tokens_are_told_from_text_that_looks_like_them() -> None:
    ids = [BOS, *TOKENIZER.encode("<|bos|>"), END]
    (row,) = described(TOKENIZER, [Row(ids, [1] * len(ids), {"reward": 0.5})])
    assert row["special"] == [0, len(ids) - 1] and row["reward"] == 0.5
    assert "".join(row["text"]) == "<|bos|><|bos|><|assistant_end|>"


def test_rows_are_cut_and_their_event_fits_a_line() -> None:
    ids = TOKENIZER.encode("the cat ") * 1000
    (row,) = described(TOKENIZER, [Row(ids, [1] * len(ids))])
    assert sum(map(len, row["ids"])) == MAX_TOKENS and row["length"] == len(ids)
    long = Tokenizer({bytes([byte]): byte for byte in range(256)} | {b"\x01" * 300: 256})
    rows = described(long, [Row([256] * 4000, [1] * 4000)] * 4)
    assert rows[0]["text"][0] == "\x01" * MAX_PIECE + "…" and rows[3]["length"] == 4000
    assert rows[0]["text"] and len(json.dumps(rows)) < 2 * MAX_BYTES


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A base model, from which the other stages start; itself the first of the runs looked at."""
    home = Home(tmp_path_factory.mktemp("home"))
    assert home.train_tokenizer().code == 0
    made = home.run("scripts.base_train", home.base_config(num_iterations=2, max_seq_len=64), run="parent")
    assert made.code == 0, made.log
    return home


@pytest.fixture(scope="module")
def tokenizer(home: Home) -> Tokenizer:
    return Tokenizer.load(home.base / "base_checkpoints" / "parent" / "step_000002")


def run(home: Home, stage: str, name: str, config: dict[str, Any], attempt: int = 1) -> Attempt:
    done = home.run(f"scripts.{stage}", config, run=name, attempt=attempt)
    assert done.code == 0, done.log
    return done


def told(attempt: Attempt) -> dict[str, Any]:
    """The one event; it comes before the first step's metrics."""
    (event,) = attempt.events("first_batch")
    kinds = [json.loads(line)["kind"] for line in (attempt.directory / "events.jsonl").open()]
    assert kinds.index("first_batch") < kinds.index("metric") and event["step"] == 1
    return event


def counted_by_chat(row: dict[str, Any]) -> list[int]:
    """What a conversation counts: all behind <|assistant_start|>, its end too, but what a tool put in."""
    expected, speaks, tool = [], False, False
    for text in row["text"]:
        tool = tool or text == "<|output_start|>"
        expected.append(int(speaks and not tool))
        tool = tool and text != "<|output_end|>"
        speaks = text == "<|assistant_start|>" or (speaks and text != "<|assistant_end|>")
    return expected


@pytest.mark.parametrize("packing", ["stream", "bos"])
def test_in_pretraining_everything_counts_but_what_no_row_predicts(
    home: Home, tokenizer: Tokenizer, packing: str
) -> None:
    config = home.base_config(num_iterations=2, packing=packing, device_batch_size=4)
    event = told(run(home, "base_train", packing, config))
    assert event["batch"] == 4 and len(event["rows"]) == 4
    for row in event["rows"]:
        assert row["length"] == 33 and row["counts"] == [0] + [1] * (len(row["counts"]) - 1)
        ids = list(chain.from_iterable(row["ids"]))
        assert len(ids) == 33 and tokenizer.decode(ids) == "".join(row["text"])
        assert [row["text"][place] for place in row["special"]] == ["<|bos|>"] * ids.count(tokenizer.bos)
    if packing == "bos":
        assert all(row["text"][0] == "<|bos|>" for row in event["rows"])


def test_in_mid_training_what_counts_is_what_is_learned(home: Home) -> None:
    config = {**COMMON, "task_examples": 160, "target_examples_per_step": 8}
    config |= {"base_checkpoint": "base_checkpoints/parent"}
    everything = told(run(home, "mid_train", "all", config))
    assistant = told(run(home, "mid_train", "assistant", {**config, "learn": "assistant"}))
    for all_of_it, some in zip(everything["rows"], assistant["rows"], strict=True):
        assert all_of_it["ids"] == some["ids"] and sum(all_of_it["counts"]) == len(all_of_it["ids"]) - 1
        if "<|bos|>" in some["text"]:  # a row may begin in the middle of a conversation, and end there too
            begin = some["text"].index("<|bos|>")
            cut = {name: some[name][begin:] for name in ("text", "counts")}
            assert cut["counts"] == counted_by_chat(cut)
    assert assistant["rows"][0]["text"][0] == "<|bos|>"
    assert 0 < sum(sum(row["counts"]) for row in assistant["rows"]) < 4 * 64


def test_in_fine_tuning_only_the_assistants_tokens_count(home: Home) -> None:
    config = {**COMMON, "task_examples": 96, "target_examples_per_step": 16}
    config |= {"mid_checkpoint": "base_checkpoints/parent", "save_every": 1, "resume_from": "auto"}
    event = told(run(home, "chat_sft", "sft", config))
    assert event["batch"] == 4 == len(event["rows"])
    for row in event["rows"]:
        assert row["text"][0] == "<|bos|>" and row["counts"] == counted_by_chat(row)
        assert sum(row["counts"]) > 1 and row["length"] == sum(map(len, row["ids"])), "no padding"
    longer = {**config, "num_iterations": 3}
    assert run(home, "chat_sft", "sft", longer, attempt=2).events("first_batch") == []
    other = {**longer, "resume_from": "chatsft_checkpoints/sft/step_000001"}
    (event,) = run(home, "chat_sft", "other", other).events("first_batch")
    assert event["step"] == 2, "another run's checkpoint: it has told nothing yet"


def test_in_reinforcement_learning_the_answer_counts_with_its_advantage(home: Home) -> None:
    config = {**COMMON, "tasks": "sums", "rewards": "short:1.0", "examples_per_step": 4, "num_samples": 4}
    config |= {"max_new_tokens": 8, "sft_checkpoint": "base_checkpoints/parent"}
    for row in told(run(home, "chat_rl", "rl", config))["rows"]:
        begin = row["text"].index("<|assistant_start|>") + 1
        assert not any(row["counts"][:begin]) and any(row["counts"][begin:])
        assert 0 <= row["reward"] <= 1 and row["advantage"] != 0


def test_telling_changes_no_loss(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(name: str) -> dict[int, float]:
        config = {**COMMON, "task_examples": 96, "target_examples_per_step": 16, "num_iterations": 4}
        config |= {"mid_checkpoint": "base_checkpoints/parent"}
        tuned = run(home, "chat_sft", name, config)
        base = run(home, "base_train", name, home.base_config(num_iterations=4))
        return tuned.losses() | {100 + step: loss for step, loss in base.losses().items()}

    telling = losses("telling")
    monkeypatch.setattr(FirstBatch, "tell", lambda *_: None)
    assert losses("silent") == telling and len(telling) == 8


def test_only_one_of_two_ranks_tells(home: Home) -> None:
    attempt = home.run("scripts.base_train", home.base_config(num_iterations=1), run="two", ranks=2)
    assert attempt.code == 0, attempt.log
    assert len(attempt.events("first_batch")) == 1


def test_the_corpus_of_the_tests_has_documents(home: Home) -> None:
    """The row of the stream that was shown is the beginning of the text."""
    event = json.loads(
        next(
            line
            for line in (home.base / "runs" / "parent" / "attempt_1" / "events.jsonl").open()
            if '"first_batch"' in line
        )
    )
    first: list[str] = event["rows"][0]["text"]
    documents = [
        json.loads(line)["text"] for line in Path(home.corpus / "text.jsonl").read_text().split("\n")
    ]
    begun = "".join(first[1:]).partition("<|bos|>")[0]
    assert first[0] == "<|bos|>" and any(text.startswith(begun) or begun == text for text in documents)
