"""The engine process over a real socket: what is asked, what comes back, and what is left behind."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nanochat.chat import render_prompt
from nanochat.engine.server import EngineServer, TextServer
from tests.nanochat.engine.tiny import CONTEXT, MODEL, TOKENIZER, engine, without_specials

Frame = dict[str, Any]


class Peer:
    """The parent's end of the socket."""

    def __init__(self) -> None:
        mine, theirs = socket.socketpair()
        mine.settimeout(20)
        self.socket, self._lines = mine, mine.makefile("rb")
        self.engine = engine(4, without_specials(MODEL))
        server = EngineServer(self.engine, theirs)
        self.thread = threading.Thread(target=server.run, daemon=True)
        self.thread.start()
        self.ready = self.read()

    def send(self, **frame: Any) -> None:
        self.socket.sendall(json.dumps(frame).encode() + b"\n")

    def read(self) -> Frame:
        frame: Frame = json.loads(self._lines.readline())
        return frame

    def ask(self, request_id: str = "r", **frame: Any) -> list[Frame]:
        """All frames of one request up to its last `finish` or error."""
        self.send(op="generate", id=request_id, seed=1, **frame)
        frames, left = [], frame.get("n", 1)
        while left:
            answer = self.read()
            if answer.get("id") == request_id:
                frames.append(answer)
                left -= answer["op"] == "finish"
                if answer["op"] == "error":
                    break
        return frames


@pytest.fixture
def peer() -> Iterator[Peer]:
    one = Peer()
    yield one
    one.socket.shutdown(socket.SHUT_RDWR)
    one.thread.join(10)
    assert not one.thread.is_alive()


def text_of(frames: list[Frame], index: int = 0) -> str:
    return "".join(f["text"] for f in frames if f["op"] == "delta" and f["index"] == index)


def test_it_says_what_it_is(peer: Peer) -> None:
    assert peer.ready == {
        "op": "ready", "context": CONTEXT, "vocab_size": TOKENIZER.vocab_size, "slots": 4, "device": "cpu",
        "precision": "float32",
    }  # fmt: skip


def test_a_text_is_continued_and_counted(peer: Peer) -> None:
    frames = peer.ask(prompt="The class", max_tokens=10, temperature=0)
    assert frames[0] == {
        "op": "accepted", "id": "r", "prompt_tokens": 1 + len(TOKENIZER.encode("The class")),
    }  # fmt: skip
    assert frames[-1]["tokens"] == 10 and frames[-1]["reason"] == "length"
    again = peer.ask("again", prompt="The class", max_tokens=10, temperature=0)
    assert text_of(again) == text_of(frames) != ""


def test_choices_are_told_apart_and_differ(peer: Peer) -> None:
    frames = peer.ask(messages=[{"role": "user", "content": "hi"}], max_tokens=12, n=3)
    assert len({text_of(frames, index) for index in range(3)}) == 3


def test_echo_comes_first_with_the_log_probabilities_of_the_prompt(peer: Peer) -> None:
    frames = peer.ask(prompt="The class", max_tokens=2, temperature=0, echo=True, logprobs=2)
    deltas = [f for f in frames if f["op"] == "delta"]
    assert (deltas[0]["text"], deltas[0]["tokens"]) == ("The class", 0)
    told = deltas[0]["logprobs"]
    assert [one["id"] for one in told] == TOKENIZER.encode("The class")  # the <|bos|> is ours: not told
    assert all(one["logprob"] < 0 and len(one["top"]) == 2 for one in told)
    assert sum(len(f["logprobs"]) for f in deltas[1:]) == 2


def test_ids_of_the_client_are_echoed_whole(peer: Peer) -> None:
    ids = [TOKENIZER.bos, *TOKENIZER.encode("ab")]
    frames = peer.ask(ids=ids, max_tokens=0, echo=True, logprobs=0)
    (delta,) = (f for f in frames if f["op"] == "delta")
    assert [one["id"] for one in delta["logprobs"]] == ids
    assert delta["logprobs"][0]["logprob"] is None
    assert frames[-1]["tokens"] == 0


def test_every_token_drawn_after_a_text_has_its_log_probability_also_one_without_text(peer: Peer) -> None:
    """lm-evaluation-harness asks for one token, drops the last log-probability and sums the others."""
    ids = TOKENIZER.encode("The class")
    for name in ("<|bos|>", "<|assistant_end|>", "<|python_start|>"):
        same: Frame = {"logit_bias": {str(TOKENIZER.special(name)): 100}, "max_tokens": 1, "temperature": 0}
        frames = peer.ask(name, prompt="The class", echo=True, logprobs=1, **same)
        told = [one for f in frames if f["op"] == "delta" for one in f["logprobs"]]
        assert [one["id"] for one in told] == [*ids, TOKENIZER.special(name)]
        assert text_of(frames) == "The class" and told[-1]["logprob"] < 0
        chat = peer.ask("chat", messages=[{"role": "user", "content": "hi"}], logprobs=1, **same)
        assert not [f for f in chat if f["op"] == "delta"]  # a chat is told what it can read


def test_a_stop_string_cuts_the_text_and_ends_the_work(peer: Peer) -> None:
    whole = text_of(peer.ask(prompt="The class", max_tokens=30, temperature=0))
    stop = whole[5:8]
    frames = peer.ask("cut", prompt="The class", max_tokens=30, temperature=0, stop=[stop])
    assert text_of(frames) == whole[: whole.index(stop)]
    assert frames[-1]["reason"] == "stop" and frames[-1]["tokens"] < 30


def test_what_begins_alike_is_computed_once(peer: Peer) -> None:
    text = "The class statement and the def statement " * 2
    peer.ask("one", prompt=text, max_tokens=1)
    cached = [
        peer.ask(str(i), prompt=text, max_tokens=1, cache=key)[-1]["cached_tokens"]
        for i, key in enumerate(["", "x"])
    ]
    assert cached[0] >= 16 and cached[1] == 0


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        ({"prompt": "word " * CONTEXT}, "context_length_exceeded", "prompt"),
        (
            {"messages": [{"role": "user", "content": "word " * CONTEXT}]},
            "context_length_exceeded",
            "messages",
        ),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "invalid_value", "messages"),
        ({"ids": [10**6]}, "invalid_value", "prompt"),
        ({"prompt": "a", "logit_bias": {"999999": 1}}, "invalid_value", "logit_bias"),
    ],
)
def test_what_is_wrong_is_named(peer: Peer, wrong: Frame, code: str, param: str) -> None:
    (error,) = peer.ask(**wrong)
    assert (error["op"], error["code"], error["param"]) == ("error", code, param)
    assert peer.ask("next", prompt="a", max_tokens=1)[-1]["op"] == "finish"


def test_special_tokens_in_a_text_stay_text(peer: Peer) -> None:
    peer.send(op="tokenize", id="t", text="<|assistant_end|>")
    ids = peer.read()["ids"]
    assert TOKENIZER.special("<|assistant_end|>") not in ids
    peer.send(op="detokenize", id="d", ids=ids)
    assert peer.read()["text"] == "<|assistant_end|>"


def test_an_abort_frees_everything_and_the_others_go_on(peer: Peer) -> None:
    peer.send(op="generate", id="long", seed=1, prompt="a", max_tokens=CONTEXT - 10)
    peer.send(op="abort", id="long")
    frames = peer.ask("short", prompt="b", max_tokens=3)
    assert frames[-1]["op"] == "finish"
    stats = peer.read()
    assert (stats["op"], stats["running"], stats["waiting"], stats["kv_used"]) == ("stats", 0, 0, 0)
    assert stats["generation_tokens"] >= 3


def test_who_leaves_last_is_seen_in_the_statistics(peer: Peer) -> None:
    peer.send(op="generate", id="long", seed=1, prompt="a", max_tokens=CONTEXT - 10)
    while peer.read()["op"] != "delta":
        pass
    peer.send(op="abort", id="long")
    while (frame := peer.read())["op"] != "stats" or frame["running"]:
        pass
    assert (frame["running"], frame["waiting"], frame["kv_used"]) == (0, 0, 0)


def test_a_process_that_only_renders_knows_no_model() -> None:
    mine, theirs = socket.socketpair()
    mine.settimeout(20)
    server = TextServer(TOKENIZER, CONTEXT, theirs)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    lines = mine.makefile("rb")
    assert json.loads(lines.readline())["slots"] == 0
    conversation = [{"role": "user", "content": "<|assistant_end|>"}]
    asked = [
        ({"op": "render", "prompt": "ab"}, {"op": "tokens", "ids": [TOKENIZER.bos, *TOKENIZER.encode("ab")]}),
        ({"op": "render", "messages": conversation},
         {"op": "tokens", "ids": render_prompt(TOKENIZER, conversation)}),
        ({"op": "detokenize", "ids": TOKENIZER.encode("ab")}, {"op": "text", "text": "ab"}),
        ({"op": "generate", "prompt": "ab"}, {"op": "error", "code": "invalid_value", "param": None,
                                              "message": "unknown operation 'generate'"}),
    ]  # fmt: skip
    for question, answer in asked:
        mine.sendall(json.dumps({"id": "r", **question}).encode() + b"\n")
        assert json.loads(lines.readline()) == {"id": "r", **answer}
    mine.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert not thread.is_alive()
