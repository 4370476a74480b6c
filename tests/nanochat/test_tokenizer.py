from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.chat import ConversationError, render_conversation, render_prompt
from nanochat.tokenizer import SPECIAL_TOKENS, Tokenizer

TOKENIZER = Tokenizer.train(iter(pydoc_data.topics.topics.values()), 600)


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    clean = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    assert TOKENIZER.decode(TOKENIZER.encode(clean)) == clean


@given(st.sampled_from(SPECIAL_TOKENS), st.text(max_size=20))
def test_special_tokens_written_by_a_user_stay_text(token: str, around: str) -> None:
    ids = TOKENIZER.encode(f"{around}{token}{around}".encode("utf-8", "replace").decode())
    assert not set(ids) & set(TOKENIZER.specials.values())


@pytest.mark.parametrize("blank", [" ", "\n", "\u3000"])
def test_blanks_without_end_are_split_like_any_text(blank: str) -> None:
    """At a million of them in a row the pattern's matcher ran out of its stack, which ended the process."""
    text = f"a{blank * 1_100_000}b"
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids) == text
    (array,) = TOKENIZER.encode_arrays([text])
    assert array.tolist() == [TOKENIZER.bos, *ids]
    short = blank * 400_000 + "b" * 200_000
    assert TOKENIZER.encode(short) == TOKENIZER._encoding.encode_ordinary(short)


def test_a_document_of_blanks_is_trained_on() -> None:
    assert Tokenizer.train(iter([" " * 1_100_000, "a b"]), 270).vocab_size == 270


def test_it_is_stored_as_json_and_comes_back_the_same(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.sha256 == TOKENIZER.sha256
    assert again.encode("Where is def?") == TOKENIZER.encode("Where is def?")
    assert again.specials == {token: 591 + i for i, token in enumerate(SPECIAL_TOKENS)}


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(ValueError, match="not a nanochat-bpe-1"):
        Tokenizer.load(tmp_path)


def test_token_bytes_count_raw_bytes_and_nothing_for_specials() -> None:
    text = "naïve 日本 text"
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.token_bytes[ids].sum() == len(text.encode())
    assert TOKENIZER.token_bytes[TOKENIZER.bos] == 0


def test_training_twice_gives_the_same_tokenizer() -> None:
    again = Tokenizer.train(iter(pydoc_data.topics.topics.values()), 600)
    assert again.sha256 == TOKENIZER.sha256


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="265"):
        Tokenizer.train(iter(["text"]), 264)


def test_the_assistant_learns_what_it_says_and_nothing_else() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2+3?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "It is "},
                {"type": "python", "text": "2+3"},
                {"type": "python_output", "text": "5"},
                {"type": "text", "text": "5"},
            ],
        },
    ]
    ids, mask = render_conversation(TOKENIZER, messages, 1000)
    learned = [token for token, flag in zip(ids, mask, strict=True) if flag]
    assert TOKENIZER.decode(learned) == "It is <|python_start|>2+3<|python_end|>5<|assistant_end|>"
    assert TOKENIZER.decode(ids).startswith(
        "<|bos|><|user_start|>Be brief.\n\n2+3?<|user_end|><|assistant_start|>"
    )
    prompt = render_prompt(TOKENIZER, messages[:2])
    assert ids[: len(prompt)] == prompt


def test_a_conversation_is_cut_at_the_limit() -> None:
    messages = [{"role": "user", "content": "hello " * 100}, {"role": "assistant", "content": "hi"}]
    ids, mask = render_conversation(TOKENIZER, messages, 17)
    assert len(ids) == len(mask) == 17


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "assistant", "content": "hi"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "system", "content": "a"}],
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        [{"role": "user", "content": None}],
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": 5},
            {"role": "user", "content": "b"},
        ],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "text"}]}],
        ["hello"],
    ],
)
def test_a_prompt_that_cannot_be_answered_is_refused(messages: list[dict[str, object]]) -> None:
    with pytest.raises(ConversationError):
        render_prompt(TOKENIZER, messages)
