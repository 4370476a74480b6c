"""Tasks: nothing that is tested was trained on, and answers are judged as a person would."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from nanochat.chat import render_conversation
from nanochat.configurator import ConfigError
from nanochat.engine.calculator import calculate
from nanochat.errors import DataError
from nanochat.tasks import Generator
from nanochat.tasks.conversations import ConversationFile
from nanochat.tasks.identity import ANSWER
from nanochat.tasks.mixture import draw, parse
from nanochat.tasks.registry import kinds, open_task
from nanochat.tasks.task import dialogue
from nanochat.tasks.words import split_words, training_word
from nanochat.tokenizer import Tokenizer

KINDS = [kind for kind in kinds().values() if issubclass(kind, Generator) and kind.name != "rg"]
NAMES = {"ids": [kind.name for kind in KINDS]}
HERE = Path()
DEFAULT = "identity,smalltalk,spelling,sums"


@pytest.mark.parametrize("kind", KINDS, **NAMES)
def test_no_problem_is_ever_seen_in_training(kind: type[Generator]) -> None:
    task, rng = kind("train", HERE), random.Random(1)
    trained = {task.sample(rng).question for _ in range(20_000)}
    trained |= {task[number].question for number in range(1000)}
    tested = {example.question for example in task.held_out}
    assert len(tested) >= 50 and not trained & tested


@pytest.mark.parametrize("kind", KINDS, **NAMES)
def test_problems_are_distinct_and_the_same_every_time(kind: type[Generator]) -> None:
    first, second = list(kind("test", HERE)), list(kind("test", HERE))
    assert first == second and len({example.question for example in first}) == len(first)
    train = kind("train", HERE)
    assert train[7] == kind("train", HERE)[7] and len(train) == kind.epoch
    for task, behind in ((train, len(train)), (train.held_out, len(first))):
        with pytest.raises(IndexError):
            task[behind]


@pytest.mark.parametrize("kind", KINDS, **NAMES)
def test_the_model_answer_is_right_and_another_is_wrong(kind: type[Generator]) -> None:
    task = kind("test", HERE)
    for problem in task:
        answer = problem.answer if isinstance(problem.answer, str) else problem.answer[-1]["text"]
        assert task.evaluate(problem, answer)
        assert not task.evaluate(problem, "") and not task.evaluate(problem, "no #### 99")


def test_held_out_words_never_appear_in_training_not_even_by_blending() -> None:
    train, test = split_words()
    rng = random.Random(2)
    seen = {training_word(rng) for _ in range(30_000)}
    assert len(train) > 1000 and len(test) > 100
    assert not seen & set(test) and not set(train) & set(test)
    assert all(3 <= len(word) <= 7 and word.isalpha() for word in seen)


def test_held_out_pairs_never_appear_in_training() -> None:
    sums = open_task("sums", "train", HERE)
    rng = random.Random(3)
    trained = {sums.sample(rng).answer[0]["text"] for _ in range(30_000)}
    tested = {problem.answer[0]["text"] for problem in sums.held_out}  # type: ignore[index]
    assert not trained & tested


@pytest.mark.parametrize("kind", KINDS, **NAMES)
def test_every_conversation_has_a_rendering_with_something_to_learn(kind: type[Generator]) -> None:
    tokenizer = Tokenizer.train(iter(["some text to learn from"] * 3), 270)
    task, rng = kind("train", HERE), random.Random(4)
    for _ in range(200):
        ids, mask = render_conversation(tokenizer, task.sample(rng).messages, 1000)
        assert len(ids) == len(mask) and any(mask)


def test_a_mixture_is_the_same_for_a_seed_and_follows_the_shares() -> None:
    parts = parse(DEFAULT, HERE)
    first = draw(parts, 4000, seed=1)
    assert first == draw(parts, 4000, seed=1) != draw(parts, 4000, seed=2)
    identity = sum(conversation[1]["content"] == ANSWER for conversation in first) / 4000
    total = sum(part.task.share for part in parts)
    assert identity == pytest.approx(parts[0].task.share / total, abs=0.03)
    doubled = draw(parse(DEFAULT.replace("identity", "identity*2"), HERE), 4000, seed=1)
    assert 1.5 * identity < sum(c[1]["content"] == ANSWER for c in doubled) / 4000 < 2 * identity


def test_files_of_conversations_are_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n\n'
        '[{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]\n'
    )
    found = [example.messages for example in ConversationFile("train", tmp_path, str(file))]
    assert found == [dialogue("a", "b").messages, dialogue("c", "d").messages]
    assert len(draw(parse(f"sums, {file}", tmp_path), 5, seed=0)) == 7
    assert len(draw(parse("sums, mine.jsonl*2", tmp_path), 5, seed=0)) == 9  # below the base directory


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no conversation"),
        ("nonsense", "line 1"),
        ('{"messages": "x"}', "line 1"),
        ("\n" + "[" * 20_000, "line 2: no JSON: maximum recursion"),
        ('[{"content": "a"}]', "line 1: message 0 is from None, expected 'user'"),
        ('[{"role": "user", "content": "a"}, {"role": "assistant"}]', "line 1: message 1: content is text"),
        (
            '[{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "python"}]}]',
            "has no text",
        ),
    ],
)
def test_a_broken_file_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        ConversationFile("train", tmp_path, str(file))


def test_an_unknown_task_names_the_nearest_and_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nearest is 'spelling'"):
        parse("speling", tmp_path)
    with pytest.raises(ConfigError, match="no task is named"):
        parse(" , ", tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        parse("not/there.jsonl", tmp_path)


def test_some_conversations_go_on_and_no_dialogue_is_lost() -> None:
    joined = draw(parse(DEFAULT, HERE), 1000, seed=1, multi_turn=0.3)
    lengths = [len(conversation) // 2 for conversation in joined]
    assert sum(lengths) == 1000
    assert 600 < len(joined) < 800 and max(lengths) >= 3
    roles = {tuple(message["role"] for message in conversation[:4]) for conversation in joined}
    assert roles == {("user", "assistant"), ("user", "assistant", "user", "assistant")}


@pytest.mark.parametrize("entry", ["sums*0", "spelling[5:5]", "spelling[200000:]"])
def test_an_entry_that_names_no_example_is_a_config_error(entry: str) -> None:
    with pytest.raises(ConfigError, match="names no example"):
        parse(entry, HERE)


def test_options_of_a_task_without_any_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes no options: 'easy'"):
        parse("sums:easy", HERE)


PARITY = """
from nanochat.tasks.task import Generator, dialogue


class Parity(Generator):
    name = "parity"

    def sample(self, rng):
        number = 2 * rng.randrange(1000) + rng.randrange(2)
        return dialogue(f"Is {number} even?", "no" if number % 2 else "yes")

    def problems(self):
        return [dialogue(f"Is {n} even?", "no" if n % 2 else "yes") for n in range(2000, 2050)]

    def evaluate(self, example, text):
        return text.strip() == example.expected


TASKS = (Parity,)
"""


def test_a_new_task_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nanochat.tasks

    (tmp_path / "parity.py").write_text(PARITY)
    monkeypatch.setattr(nanochat.tasks, "__path__", [*nanochat.tasks.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "nanochat.tasks.parity", raising=False)
    task = open_task("parity", "test", HERE)
    assert len(task) == 50 and task.evaluate(task[1], "no") and task.reward(task[1], "yes") == 0.0
    assert len(draw(parse("parity,sums", HERE), 30, seed=1)) == 30
    with pytest.raises(ConfigError, match="the nearest is 'parity'"):
        open_task("party", "test", HERE)


def test_the_bee_counts_with_the_tool_what_it_has_counted_along() -> None:
    bee = open_task("spellingbee", "train", HERE)
    counted = set()
    for number in range(400):
        said, call, output, end = (part["text"] for part in bee[number].answer)  # type: ignore[index]
        word, _, letter = call.split('"')[1:4]
        marks = said.split()
        assert "".join(mark for mark in marks if mark.isalpha()) == word
        assert [mark for mark in marks if mark.isdigit()] == [str(i + 1) for i in range(word.count(letter))]
        assert calculate(call) == output == str(word.count(letter)) and end == f"#### {output}"
        counted.add(output)
    assert {"0", "1", "2"} <= counted and len(bee.held_out) == 256
