"""Who is computed next: in order, within the rows of a pass, without ever losing a lane or a block."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.engine.blocks import Blocks
from nanochat.engine.scheduler import Scheduler, Sequence


def scheduler(lanes: int = 2, rows: int = 8, blocks: int = 16) -> Scheduler[Sequence]:
    return Scheduler(lanes, rows, Blocks(blocks, 2))


def one_pass(s: Scheduler[Sequence]) -> dict[str, int]:
    """Plan, compute, and append a token to whoever has none missing."""
    plan = s.plan()
    for sequence, count in plan:
        s.computed(sequence, count)
        if not sequence.missing:
            sequence.tokens.append(7)
    return {sequence.id: count for sequence, count in plan}


def test_lanes_are_given_in_order_of_arrival() -> None:
    s = scheduler()
    for name in "abcd":
        s.add(Sequence(name, [1, 2]))
    assert one_pass(s) == {"a": 2, "b": 2}
    s.release(s.running[0])
    assert s.abort("c") and s.waiting == 1
    assert one_pass(s) == {"b": 1, "d": 2}


def test_a_long_prompt_comes_in_pieces_beside_those_that_generate() -> None:
    s = scheduler(rows=5)
    s.add(Sequence("talks", [1]))
    one_pass(s)
    s.add(Sequence("long", list(range(10))))
    assert [one_pass(s) for _ in range(4)] == [
        {"talks": 1, "long": 4}, {"talks": 1, "long": 4}, {"talks": 1, "long": 2}, {"talks": 1, "long": 1},
    ]  # fmt: skip


def test_a_second_choice_waits_for_the_prompt_and_finds_it() -> None:
    s = scheduler(rows=4)
    first = Sequence("r", [1, 2, 3, 4, 5])
    second = Sequence("r", [1, 2, 3, 4, 5], after=first)
    s.add(first)
    s.add(second)
    one_pass(s)
    assert second.lane < 0
    one_pass(s)
    one_pass(s)
    assert (second.cached, second.computed) == (4, 5)
    assert second.blocks[:2] == first.blocks[:2]


def test_when_blocks_are_short_the_youngest_gives_way_and_comes_back() -> None:
    s = scheduler(blocks=4)
    old, young = Sequence("old", [1, 2, 3]), Sequence("young", [4, 5, 6])
    s.add(old)
    s.add(young)
    while not s.preemptions:
        assert one_pass(s)
    assert (young.lane, young.blocks, s.waiting) == (-1, [], 1)
    length = len(young.tokens)
    s.release(old)
    assert one_pass(s) == {"young": length - young.cached}
    assert young.missing == 1


def test_prompts_whose_logits_are_wanted_are_never_taken_from_the_cache() -> None:
    s = scheduler()
    s.add(Sequence("a", [1, 2, 3, 4, 5]))
    one_pass(s)
    s.add(Sequence("b", [1, 2, 3, 4, 5], prompt_logits=True))
    assert one_pass(s) == {"a": 1, "b": 5}


def test_a_pass_without_room_for_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="room"):
        scheduler(lanes=4, rows=4)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("acccs"), st.integers(1, 14), st.integers(0, 2)), max_size=60),
    st.integers(8, 20),
)
def test_whatever_happens_nothing_is_lost(steps: list[tuple[str, int, int]], blocks: int) -> None:
    s = scheduler(lanes=3, rows=5, blocks=blocks)
    for number, (what, length, salt) in enumerate(steps):
        if what == "a" and s.running:
            s.abort(s.running[length % len(s.running)].id)
        elif what == "s":
            one_pass(s)
        else:
            s.add(Sequence(str(number), [salt] * length, salt=str(salt)))
        for sequence in [q for q in s.running if len(q.tokens) >= 16]:
            s.release(sequence)
        assert sum(count for count in one_pass(s).values()) <= 5
        held = {block for sequence in s.running for block in sequence.blocks}
        assert s.blocks.used == len(held)
    for _ in range(2000):
        if not s.busy:
            break
        one_pass(s)
        for sequence in [q for q in s.running if len(q.tokens) >= 16]:
            s.release(sequence)
    assert not s.busy and s.blocks.used == 0
