"""Tasks: nothing that is tested was trained on, and answers are judged as a person would."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nanochat.chat import render_conversation
from nanochat.configurator import ConfigError
from nanochat.errors import DataError
from nanochat.tasks import TASKS, Task
from nanochat.tasks.identity import ANSWER
from nanochat.tasks.mixture import draw, parse, read_jsonl
from nanochat.tasks.task import dialogue
from nanochat.tasks.words import split_words, training_word
from nanochat.tokenizer import Tokenizer

ALL = list(TASKS.values())
NAMES = {"ids": list(TASKS)}


@pytest.mark.parametrize("task", ALL, **NAMES)
def test_no_problem_is_ever_seen_in_training(task: Task) -> None:
    rng = random.Random(1)
    trained = {str(task.conversation(rng)[0]["content"]) for _ in range(20_000)}
    tested = {problem.question for problem in task.problems()}
    assert len(tested) >= 50 and not trained & tested


@pytest.mark.parametrize("task", ALL, **NAMES)
def test_problems_are_distinct_and_the_same_every_time(task: Task) -> None:
    first, second = list(task.problems()), list(task.problems())
    assert first == second and len({problem.question for problem in first}) == len(first)


@pytest.mark.parametrize("task", ALL, **NAMES)
def test_the_model_answer_is_right_and_another_is_wrong(task: Task) -> None:
    for problem in task.problems():
        answer = problem.answer if isinstance(problem.answer, str) else problem.answer[-1]["text"]
        assert task.is_right(problem, answer)
        assert not task.is_right(problem, "") and not task.is_right(problem, f"no {answer}")


def test_held_out_words_never_appear_in_training_not_even_by_blending() -> None:
    train, test = split_words()
    rng = random.Random(2)
    seen = {training_word(rng) for _ in range(30_000)}
    assert len(train) > 1000 and len(test) > 100
    assert not seen & set(test) and not set(train) & set(test)
    assert all(3 <= len(word) <= 7 and word.isalpha() for word in seen)


def test_held_out_pairs_never_appear_in_training() -> None:
    sums = TASKS["sums"]
    rng = random.Random(3)
    trained = {sums.conversation(rng)[1]["content"][0]["text"] for _ in range(30_000)}
    tested = {problem.answer[0]["text"] for problem in sums.problems()}  # type: ignore[index]
    assert not trained & tested


@pytest.mark.parametrize("task", ALL, **NAMES)
def test_every_conversation_has_a_rendering_with_something_to_learn(task: Task) -> None:
    tokenizer = Tokenizer.train(iter(["some text to learn from"] * 3), 270)
    rng = random.Random(4)
    for _ in range(200):
        ids, mask = render_conversation(tokenizer, task.conversation(rng), 1000)
        assert len(ids) == len(mask) and any(mask)


def test_a_mixture_is_the_same_for_a_seed_and_follows_the_shares() -> None:
    first = draw(ALL, [], 4000, seed=1)
    assert first == draw(ALL, [], 4000, seed=1) != draw(ALL, [], 4000, seed=2)
    identity = sum(conversation[1]["content"] == ANSWER for conversation in first) / 4000
    total = sum(task.share for task in ALL)
    assert identity == pytest.approx(TASKS["identity"].share / total, abs=0.03)


def test_files_of_conversations_are_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n\n'
        '[{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]\n'
    )
    assert read_jsonl(file) == [dialogue("a", "b"), dialogue("c", "d")]
    tasks, files = parse(f"sums, {file}", tmp_path)
    assert len(draw(tasks, files, 5, seed=0)) == 7


@pytest.mark.parametrize(
    ("text", "message"), [("", "no conversation"), ("nonsense", "line 1"), ('{"messages": "x"}', "line 1")]
)
def test_a_broken_file_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_jsonl(file)


def test_an_unknown_task_names_the_nearest_and_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nearest is 'spelling'"):
        parse("speling", tmp_path)
    with pytest.raises(ConfigError, match="no task is named"):
        parse(" , ", tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        parse("not/there.jsonl", tmp_path)


def test_some_conversations_go_on_and_no_dialogue_is_lost() -> None:
    joined = draw(ALL, [], 1000, seed=1, multi_turn=0.3)
    lengths = [len(conversation) // 2 for conversation in joined]
    assert sum(lengths) == 1000
    assert 600 < len(joined) < 800 and max(lengths) >= 3
    roles = {tuple(message["role"] for message in conversation[:4]) for conversation in joined}
    assert roles == {("user", "assistant"), ("user", "assistant", "user", "assistant")}
