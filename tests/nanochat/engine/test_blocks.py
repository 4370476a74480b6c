"""Blocks: nobody loses one, nobody gets another's text, and what many begin with is kept once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.engine.blocks import Blocks


def fill(blocks: Blocks, text: list[int], salt: str = "") -> list[int]:
    """What a sequence does with its blocks: find, take the rest, publish the full ones."""
    mine = blocks.match(salt, text)
    while len(mine) * blocks.size < len(text):
        block = blocks.take()
        assert block is not None
        mine.append(block)
    for index in range(len(text) // blocks.size):
        blocks.publish(salt, mine, index, text[index * blocks.size : (index + 1) * blocks.size])
    return mine


def test_the_same_beginning_is_the_same_blocks() -> None:
    blocks = Blocks(8, 2)
    first = fill(blocks, [1, 2, 3, 4, 5])
    assert blocks.match("", [1, 2, 3, 4, 9, 9]) == first[:2]
    assert blocks.match("", [1, 2, 9, 9]) == first[:1]
    assert blocks.match("", [3, 4]) == []  # the same tokens at another place are another text
    assert blocks.match("other", [1, 2]) == []
    assert blocks.used == 3


def test_what_nobody_uses_is_found_until_its_room_is_needed_the_oldest_first() -> None:
    blocks = Blocks(3, 2)
    old, new = fill(blocks, [1, 2]), fill(blocks, [3, 4])
    blocks.give_back(old)
    blocks.give_back(new)
    assert (blocks.used, blocks.available) == (0, 3)
    taken = [blocks.take(), blocks.take()]
    assert taken[1] == old[0]
    assert blocks.match("", [1, 2]) == []
    assert blocks.match("", [3, 4]) == new
    assert blocks.take() is None


def test_a_shared_block_is_free_only_when_both_have_left() -> None:
    blocks = Blocks(2, 2)
    mine = fill(blocks, [1, 2])
    yours = blocks.match("", [1, 2])
    blocks.give_back(mine)
    assert blocks.used == 1
    blocks.give_back(yours)
    assert blocks.used == 0


def test_a_block_behind_one_that_went_is_never_found_by_a_new_text() -> None:
    blocks = Blocks(2, 2)
    blocks.give_back(fill(blocks, [1, 2, 3, 4]))  # the end is given back first, so it goes first
    assert blocks.take() is not None
    assert len(blocks.match("", [1, 2, 3, 4])) == 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 1), min_size=1, max_size=9)), max_size=40)
)
def test_no_block_is_lost_and_every_match_is_true(steps: list[tuple[int, list[int]]]) -> None:
    blocks = Blocks(12, 2)
    holding: list[list[int]] = []
    content: dict[int, tuple[int, ...]] = {}  # block → all tokens up to its end
    for choice, text in steps:
        if choice == 0 and holding:
            blocks.give_back(holding.pop(0))
            continue
        found = blocks.match("", text)
        for index, block in enumerate(found):
            assert content[block] == tuple(text[: 2 * (index + 1)])
        mine = list(found)
        while len(mine) * 2 < len(text) and (block := blocks.take()) is not None:
            mine.append(block)
        for index in range(min(len(mine), len(text) // 2)):
            if index >= len(found):
                content[mine[index]] = tuple(text[: 2 * (index + 1)])
            blocks.publish("", mine, index, text[2 * index : 2 * index + 2])
        holding.append(mine)
        assert blocks.used == len({block for held in holding for block in held})
    for held in holding:
        blocks.give_back(held)
    assert (blocks.used, blocks.available) == (0, 12)
