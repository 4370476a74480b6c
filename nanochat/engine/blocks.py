"""Which blocks of the cache belong to whom, and which hold text that a later request begins with.

Pure Python: no model, no tensors. A full block can be shared: its identity is the block before it and its
tokens, compared in full, so two texts never pass for one another. Blocks that nobody uses stay findable
until their room is needed, the longest unused first (as in vLLM's automatic prefix caching).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

Key = tuple[object, tuple[int, ...]]


class Blocks:
    """`count` blocks of `size` tokens each. Not thread-safe."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self._free = list(range(count - 1, -1, -1))
        self._users = [0] * count
        self._keys: dict[int, Key] = {}  # of blocks that can be found
        self._found: dict[Key, int] = {}
        self._nodes: dict[int, int] = {}  # block → what the key of the next block begins with
        self._next_node = 0
        self._unused: OrderedDict[int, None] = OrderedDict()  # findable, and nobody's

    @property
    def available(self) -> int:
        """Blocks that `take` can give."""
        return len(self._free) + len(self._unused)

    @property
    def used(self) -> int:
        """Blocks that belong to someone."""
        return self.count - self.available

    def take(self) -> int | None:
        """A block of one's own, or None when all are in use."""
        if self._free:
            block = self._free.pop()
        elif self._unused:
            block, _ = self._unused.popitem(last=False)
            self._forget(block)
        else:
            return None
        self._users[block] = 1
        return block

    def give_back(self, blocks: Sequence[int]) -> None:
        """One use less of each; the end of a text goes before its beginning."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block]:
                continue
            if block in self._keys:
                self._unused[block] = None
            else:
                self._free.append(block)

    def match(self, salt: str, tokens: Sequence[int]) -> list[int]:
        """The blocks with the longest known beginning of `tokens`; they are the caller's to give back."""
        found: list[int] = []
        parent: object = salt
        for at in range(0, len(tokens) - self.size + 1, self.size):
            block = self._found.get((parent, tuple(tokens[at : at + self.size])))
            if block is None:
                break
            if not self._users[block]:
                del self._unused[block]
            self._users[block] += 1
            found.append(block)
            parent = self._nodes[block]
        return found

    def publish(self, salt: str, blocks: Sequence[int], index: int, tokens: Sequence[int]) -> None:
        """Block `index` of a sequence is full of `tokens` and computed: others may find it.

        Nothing happens when the same text can be found already, or the block before it cannot.
        """
        if index and blocks[index - 1] not in self._nodes:
            return
        key: Key = (self._nodes[blocks[index - 1]] if index else salt, tuple(tokens))
        block = blocks[index]
        if key in self._found or block in self._keys:
            return
        self._keys[block], self._found[key] = key, block
        self._nodes[block] = self._next_node
        self._next_node += 1

    def _forget(self, block: int) -> None:
        del self._found[self._keys.pop(block)]
        del self._nodes[block]
