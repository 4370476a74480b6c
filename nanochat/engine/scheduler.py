"""Who is computed in the next pass. Pure Python: no model, no tensors.

Every pass holds one row for each sequence that is generating, and pieces of prompts up to a budget of rows;
requests join and leave between passes. Blocks are taken as they are needed: when none is left, the youngest
sequence gives its own back and is computed again later, with the same result, because random numbers belong
to positions. First come, first served.

Not covered: priorities, deadlines.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from nanochat.engine.blocks import Blocks


@dataclass(eq=False)
class Sequence:
    """Tokens of one choice of a request: the prompt, then what was generated."""

    id: str
    tokens: list[int]
    salt: str = ""
    prompt_logits: bool = False
    """Logits of every position are wanted: nothing can come from the cache of prefixes."""
    after: Sequence | None = None
    """Begins only when this one has computed as many tokens: then it finds them."""
    lane: int = -1
    computed: int = 0
    cached: int = 0
    """Tokens of the prompt that were found, not computed."""
    blocks: list[int] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Tokens that are not in the cache yet; one of a sequence that generates."""
        return len(self.tokens) - self.computed


S = TypeVar("S", bound=Sequence)


class Scheduler(Generic[S]):
    """Lanes for `lanes` sequences at once, `rows` rows per pass, over `blocks`."""

    def __init__(self, lanes: int, rows: int, blocks: Blocks) -> None:
        if rows <= lanes:
            raise ValueError("a pass must have room for one row of every lane, and for prompts")
        self._free_lanes = list(range(lanes - 1, -1, -1))
        self._rows, self.blocks = rows, blocks
        self._waiting: deque[S] = deque()
        self.running: list[S] = []
        self.preemptions = 0
        self.prefix_queries = 0
        self.prefix_hits = 0

    def add(self, sequence: S) -> None:
        self._waiting.append(sequence)

    def plan(self) -> list[tuple[S, int]]:
        """Sequences of the next pass and how many of their tokens, in the order they arrived."""
        planned: dict[S, int] = {}
        room = self._rows
        for sequence in list(self.running):
            if sequence.missing == 1 and sequence.lane >= 0 and self._reserve(sequence, 1, planned):
                planned[sequence] = 1
                room -= 1
        for sequence in list(self.running):
            if sequence.missing > 1 and sequence.lane >= 0 and room > 0:
                count = min(sequence.missing, room)
                if self._reserve(sequence, count, planned):
                    planned[sequence] = count
                    room -= count
        while room > 0 and (fresh := self._admit()) is not None:
            count = min(fresh.missing, room)
            planned[fresh] = count
            room -= count
        return [(sequence, planned[sequence]) for sequence in self.running if sequence in planned]

    def computed(self, sequence: S, count: int) -> None:
        """The next `count` tokens of the sequence are in the cache now."""
        size = self.blocks.size
        before = sequence.computed // size
        sequence.computed += count
        for index in range(before, sequence.computed // size):
            tokens = sequence.tokens[index * size : (index + 1) * size]
            self.blocks.publish(sequence.salt, sequence.blocks, index, tokens)

    def release(self, sequence: S) -> None:
        """A running sequence has ended: lane and blocks are free at once."""
        self.running.remove(sequence)
        self._leave(sequence)

    def abort(self, request_id: str) -> list[S]:
        """Forget every sequence of a request, waiting or running; returns them."""
        gone = [s for s in self._waiting if s.id == request_id]
        if gone:
            self._waiting = deque(s for s in self._waiting if s.id != request_id)
        for sequence in [s for s in self.running if s.id == request_id]:
            self.release(sequence)
            gone.append(sequence)
        return gone

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self.running)

    # ------------------------------------------------------------ lanes and blocks

    def _admit(self) -> S | None:
        """Let the first of those who wait in, when there is a lane and room for its tokens."""
        if not self._free_lanes or not self._waiting:
            return None
        sequence = self._waiting[0]
        if (leader := sequence.after) is not None:
            if leader.lane >= 0 and leader.computed < len(sequence.tokens):
                return None
            sequence.after = None
        found = []
        if not sequence.prompt_logits:  # the last token is always computed: its logits are what is wanted
            found = self.blocks.match(sequence.salt, sequence.tokens[:-1])
        needed = -(-len(sequence.tokens) // self.blocks.size) - len(found)
        if needed > self.blocks.available:
            self.blocks.give_back(found)
            return None
        self._waiting.popleft()
        sequence.lane = self._free_lanes.pop()
        sequence.blocks = found
        sequence.computed = sequence.cached = len(found) * self.blocks.size
        self.prefix_queries += len(sequence.tokens)
        self.prefix_hits += sequence.cached
        for _ in range(needed):
            block = self.blocks.take()
            assert block is not None
            sequence.blocks.append(block)
        self.running.append(sequence)
        return sequence

    def _reserve(self, sequence: S, count: int, planned: dict[S, int]) -> bool:
        """Blocks for `count` more tokens; the youngest others give way. False: it had to give way itself."""
        while len(sequence.blocks) * self.blocks.size < sequence.computed + count:
            block = self.blocks.take()
            if block is not None:
                sequence.blocks.append(block)
                continue
            youngest = self.running[-1]
            self.running.pop()
            planned.pop(youngest, None)
            self._leave(youngest)
            youngest.computed = 0
            self._waiting.appendleft(youngest)
            self.preemptions += 1
            if youngest is sequence:
                return False
        return True

    def _leave(self, sequence: S) -> None:
        self.blocks.give_back(sequence.blocks)
        sequence.blocks = []
        self._free_lanes.append(sequence.lane)
        sequence.lane = -1
