"""Log-probabilities of given text, many sequences per forward pass, shared beginnings computed once.

A group is what is compared: the choices of one question. Whole blocks of 16 tokens with which all its
sequences begin are computed once and shared through the runner's cache; then the rest of every sequence
of every group runs together. Only rows that are asked for give logits.

Not covered: sharing between groups; sequences longer than the model's context (cut them first, see `cut`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nanochat.engine.runner import BLOCK, Batch, Ints, Runner


@dataclass(frozen=True)
class Span:
    """Rows `ids[first:]` of a sequence are asked for."""

    ids: Sequence[int]
    first: int


@dataclass(frozen=True)
class Continuation:
    """What a model thinks of a continuation: mean nats per token, and whether greedy decoding says it."""

    loss: float
    greedy: bool


@dataclass
class _Piece:
    key: tuple[int, int]  # group, member; member −1: the shared beginning
    ids: Sequence[int]
    start: int  # position of ids[0]
    wanted_from: int  # position
    table: list[int]


class Scorer:
    """Runs groups through a runner that nothing else uses meanwhile.

    `before_pass` is called before every forward pass; what it raises ends the scoring.
    """

    def __init__(self, runner: Runner, before_pass: Callable[[], None] | None = None) -> None:
        self.runner, self._before_pass = runner, before_pass
        self.passes = self.rows = 0

    @torch.inference_mode()
    def continuations(
        self, groups: Sequence[Sequence[tuple[Sequence[int], int]]]
    ) -> list[list[Continuation]]:
        """For each (ids, start) of each group: how likely `ids[start:]` is behind `ids[:start]`."""
        spans = [[Span(ids[:-1], start - 1) for ids, start in group] for group in groups]
        nats = [[0.0] * len(group) for group in groups]
        greedy = [[True] * len(group) for group in groups]
        for group, member, position, logits_NV in self.logits(spans):
            ids = groups[group][member][0]
            following = torch.tensor(ids[position + 1 : position + 1 + len(logits_NV)])
            following = following.to(logits_NV.device)
            of_token = logits_NV.gather(1, following[:, None])[:, 0]
            nats[group][member] += float((logits_NV.logsumexp(1) - of_token).sum(dtype=torch.float64))
            greedy[group][member] &= bool((logits_NV.argmax(1) == following).all())
        return [
            [
                Continuation(nats[g][m] / (len(ids) - start), greedy[g][m])
                for m, (ids, start) in enumerate(group)
            ]
            for g, group in enumerate(groups)
        ]

    @torch.inference_mode()
    def last(self, prompts: Sequence[Sequence[int]], columns: Sequence[Sequence[int]]) -> list[list[float]]:
        """Logits of the tokens `columns[i]` behind prompt i."""
        found: list[list[float]] = [[] for _ in prompts]
        for group, _, _, logits_NV in self.logits([[Span(ids, len(ids) - 1)] for ids in prompts]):
            found[group] = logits_NV[-1, torch.tensor(columns[group])].tolist()
        return found

    def logits(self, groups: Sequence[Sequence[Span]]) -> Iterator[tuple[int, int, int, Tensor]]:
        """(group, member, position of the first row, logits) of every wanted row, in order per sequence."""
        free = list(range(self.runner.blocks))
        wave: list[tuple[list[_Piece], list[_Piece]]] = []
        for number, group in enumerate(groups):
            for members in self._fitting(group):
                shared = _shared_tokens([group[m] for m in members])
                need = _blocks(shared) + sum(_blocks(len(group[m].ids)) - _blocks(shared) for m in members)
                if need > len(free):
                    yield from self._run(wave)
                    wave, free = [], list(range(self.runner.blocks))
                wave.append(_lay_out(number, group, members, shared, free))
        yield from self._run(wave)

    def _fitting(self, group: Sequence[Span]) -> list[list[int]]:
        """The members together when the cache has room for them, else one after the other."""
        everyone = list(range(len(group)))
        if sum(_blocks(len(span.ids)) for span in group) <= self.runner.blocks:
            return [everyone]
        return [[member] for member in everyone]

    def _run(self, wave: list[tuple[list[_Piece], list[_Piece]]]) -> Iterator[tuple[int, int, int, Tensor]]:
        for phase in (0, 1):  # beginnings first: what points to them runs in a later pass
            yield from self._passes([piece for pieces in wave for piece in pieces[phase]])

    def _passes(self, pieces: list[_Piece]) -> Iterator[tuple[int, int, int, Tensor]]:
        waiting = list(reversed(pieces))
        while waiting:
            batch: list[_Piece] = []
            room = self.runner.max_rows
            while waiting and room:
                piece = waiting.pop()
                if len(piece.ids) > room:
                    rest = _Piece(
                        piece.key, piece.ids[room:], piece.start + room, piece.wanted_from, piece.table
                    )
                    waiting.append(rest)
                    piece = _Piece(piece.key, piece.ids[:room], piece.start, piece.wanted_from, piece.table)
                batch.append(piece)
                room -= len(piece.ids)
            yield from self._forward(batch)

    def _forward(self, pieces: list[_Piece]) -> Iterator[tuple[int, int, int, Tensor]]:
        if self._before_pass is not None:
            self._before_pass()
        tables = np.zeros((len(pieces), max(len(piece.table) for piece in pieces)), dtype=np.int32)
        tokens: list[int] = []
        positions: list[int] = []
        sequence: list[int] = []
        wanted: list[int] = []
        asked: list[tuple[_Piece, int, int]] = []
        for number, piece in enumerate(pieces):
            tables[number, : len(piece.table)] = piece.table
            end = piece.start + len(piece.ids)
            first = max(piece.start, piece.wanted_from)
            if first < end:
                wanted += range(len(tokens) + first - piece.start, len(tokens) + len(piece.ids))
                asked.append((piece, first, end - first))
            tokens += piece.ids
            positions += range(piece.start, end)
            sequence += [number] * len(piece.ids)
        batch = Batch(_ints(tokens), _ints(positions), _ints(sequence), tables, _ints(wanted))
        logits_NV = self.runner.forward(batch)
        self.passes += 1
        self.rows += len(tokens)
        at = 0
        for piece, first, count in asked:
            yield (*piece.key, first, logits_NV[at : at + count])
            at += count


def cut(ids: Sequence[int], start: int, context: int) -> tuple[Sequence[int], int]:
    """The last `context` tokens, and where the continuation begins in them (1 at least)."""
    lost = max(0, len(ids) - context)
    return ids[lost:], max(1, start - lost)


def common_start(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens with which all sequences begin."""
    first, *others = sequences
    for at, token in enumerate(first):
        if any(at == len(other) or other[at] != token for other in others):
            return at
    return len(first)


def _shared_tokens(spans: Sequence[Span]) -> int:
    """Whole blocks of tokens that all begin with and none wants logits of; 0 for a single sequence."""
    if len(spans) < 2:
        return 0
    common = min(common_start([span.ids for span in spans]), min(span.first for span in spans))
    return common // BLOCK * BLOCK


def _ints(numbers: list[int]) -> Ints:
    return np.array(numbers, dtype=np.int32)


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK)


def _lay_out(
    number: int, group: Sequence[Span], members: list[int], shared: int, free: list[int]
) -> tuple[list[_Piece], list[_Piece]]:
    """(the shared beginning, if any; the rest of every member), with blocks taken from `free`."""
    common = [free.pop() for _ in range(_blocks(shared))]
    first = group[members[0]].ids
    begin = [_Piece((number, -1), first[:shared], 0, shared, common)] if shared else []
    rest = []
    for member in members:
        span = group[member]
        own = [free.pop() for _ in range(_blocks(len(span.ids)) - len(common))]
        rest.append(_Piece((number, member), span.ids[shared:], shared, span.first, [*common, *own]))
    return begin, rest
