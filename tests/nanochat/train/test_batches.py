"""Micro-batches of similar length, none of them without something to learn."""

from __future__ import annotations

import random

import pytest
import torch

from nanochat.tokenizer import Tokenizer
from nanochat.train.batches import Row, collate, learnable_rows, make_plan

TOKENIZER = Tokenizer.train(iter(["text"] * 3), 265)


def rows(count: int, seed: int = 0) -> list[Row]:
    rng = random.Random(seed)
    return [([n + 1] * (size := rng.randint(3, 60)), [0] + [1] * (size - 1)) for n in range(count)]


def test_every_row_is_used_once_in_steps_of_the_right_size() -> None:
    given = rows(640)
    plan = make_plan(given, micro=8, per_step=32, seed=1)
    assert [len(step) for step in plan] == [4] * 20
    used = sorted(ids[0] for step in plan for micro in step for ids, _ in micro)
    assert used == sorted(ids[0] for ids, _ in given)


def test_rows_of_a_micro_batch_are_of_similar_length() -> None:
    plan = make_plan(rows(640), micro=8, per_step=32, seed=1)
    padded = sum(8 * max(len(ids) for ids, _ in micro) for step in plan for micro in step)
    real = sum(len(ids) for step in plan for micro in step for ids, _ in micro)
    assert padded < 1.05 * real


def test_the_same_seed_gives_the_same_plan() -> None:
    first, second = (make_plan(rows(100), micro=4, per_step=16, seed=s) for s in (3, 3))
    assert first == second != make_plan(rows(100), micro=4, per_step=16, seed=4)


def test_fewer_rows_than_a_step_still_make_one_step() -> None:
    plan = make_plan(rows(5), micro=4, per_step=16, seed=0)
    assert len(plan) == 1 and sum(len(micro) for micro in plan[0]) == 16


def test_a_conversation_cut_before_its_answer_is_left_out() -> None:
    cut: Row = ([1, 2, 3], [0, 0, 0])
    kept: Row = ([1, 2, 3], [0, 0, 1])
    assert learnable_rows([cut, kept]) == [kept]


def test_targets_are_the_next_tokens_and_minus_one_elsewhere() -> None:
    rows = [([5, 6, 7, 8], [0, 0, 1, 1]), ([5, 9], [0, 1])]
    x, y = collate(rows, TOKENIZER, torch.device("cpu"), 3)
    wide, _ = collate(rows, TOKENIZER, torch.device("cpu"), 256)
    assert wide.shape == (2, 16)
    end = TOKENIZER.special("<|assistant_end|>")
    assert x.tolist() == [[5, 6, 7], [5, end, end]]
    assert y.tolist() == [[-1, 7, 8], [9, -1, -1]]


@pytest.mark.parametrize("size", [1, 2])
def test_ranks_take_every_row_of_a_micro_batch_once(size: int) -> None:
    (step,) = make_plan(rows(8), micro=8, per_step=8, seed=0)
    shares = [step[0][rank::size] for rank in range(size)]
    assert sorted(ids[0] for share in shares for ids, _ in share) == list(range(1, 9))
