"""Continuous batching: requests join and leave between passes, and one pass serves them all.

The scheduler says which tokens of whom are computed next, the runner computes them, the sampler draws.
The same request gives the same tokens alone or among others, in pieces, or behind a cached prefix: on
CPUs bit for bit in every precision, on GPUs as far as their kernels allow.

Not covered: drafts of a smaller model (speculative decoding), adapters, constrained grammars.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nanochat.engine.blocks import Blocks
from nanochat.engine.calculator import calculate
from nanochat.engine.runner import BLOCK, Batch, Ints, Runner
from nanochat.engine.sampling import Sampler, Sampling
from nanochat.engine.scheduler import Scheduler, Sequence
from nanochat.tokenizer import Tokenizer

MAX_TOOL_TOKENS = 64
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Request:
    """One sequence to generate. `index` tells the choices of one request apart.

    `logprobs`: how many alternatives to report beside each token's own log-probability, None for none at
    all. `echo`: those of the prompt too. `salt`: only equal ones share cached prefixes. `ignore_eos`: an
    end token is a token like others, so that a benchmark gets the length it asked for.
    """

    id: str
    prompt: Seq[int]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    index: int = 0
    logprobs: int | None = None
    echo: bool = False
    salt: str = ""
    ignore_eos: bool = False


@dataclass(frozen=True)
class Logprob:
    """ln p of a token by the model alone, before temperature and penalties; and the likeliest instead."""

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Of a finished sequence; seconds by a monotonic clock."""

    cached_tokens: int
    queue_s: float
    prefill_s: float
    decode_s: float


@dataclass(frozen=True)
class Output:
    """One token of a sequence, its prompt's log-probabilities (`echo`), or its end.

    A token of a tool call (`tool`) is not said to the user. An end's `logprob` is that of its end token.
    """

    id: str
    index: int
    token: int | None = None
    tool: bool = False
    logprob: Logprob | None = None
    echo: tuple[Logprob, ...] = ()
    finish: FinishReason | None = None
    usage: Usage | None = None


@dataclass(eq=False, kw_only=True)
class _Choice(Sequence):
    request: Request
    prompt: int  # tokens
    expression: list[int] | None = None  # tokens since <|python_start|>
    in_output: bool = False
    echoed: list[Logprob] = field(default_factory=list)
    added: float = field(default_factory=time.monotonic)
    started: float = 0.0
    first: float = 0.0

    @property
    def made(self) -> int:
        return len(self.tokens) - self.prompt


class Engine:
    """Generates for many requests at once. Not thread-safe: one thread adds, steps and aborts."""

    def __init__(self, runner: Runner, tokenizer: Tokenizer, lanes: int = 8) -> None:
        if runner.blocks * BLOCK < runner.context:
            raise ValueError("the cache must have room for one sequence of full length")
        self.runner, self.tokenizer, self.context, self.lanes = runner, tokenizer, runner.context, lanes
        self.blocks = Blocks(runner.blocks, BLOCK)
        self.scheduler: Scheduler[_Choice] = Scheduler(lanes, runner.max_rows, self.blocks)
        self._tables = np.zeros((lanes, -(-self.context // BLOCK)), dtype=np.int32)
        self._tabled: list[list[int] | None] = [None] * lanes  # whose blocks a lane's table holds
        special = tokenizer.special
        self._ends = {special("<|assistant_end|>"), tokenizer.bos}
        self._python = (special("<|python_start|>"), special("<|python_end|>"))
        self._output = (special("<|output_start|>"), special("<|output_end|>"))
        never = [special(name) for name in ("<|user_start|>", "<|user_end|>", "<|assistant_start|>")]
        self._sample = Sampler(runner.vocab_size, [*never, *self._output], getattr(runner, "device", "cpu"))
        self.passes = self.rows = self.prompt_tokens = self.generated_tokens = 0

    def add(self, *requests: Request) -> None:
        """Queue choices of one prompt, which is computed once for all of them.

        Raises ValueError when the prompt is empty or leaves no room for a token.
        """
        first: _Choice | None = None
        for request in requests:
            length = len(request.prompt)
            if not 0 < length < self.context + (request.max_new_tokens == 0):
                raise ValueError(f"a prompt of {length} tokens does not fit a context of {self.context}")
            choice = _Choice(
                id=request.id, tokens=list(request.prompt), salt=request.salt, request=request, prompt=length,
                prompt_logits=request.echo and request.logprobs is not None, after=first,
            )  # fmt: skip
            first = first or choice
            self.scheduler.add(choice)

    def abort(self, request_id: str) -> None:
        """Forget a request; its lanes and blocks are free before the next pass."""
        self.scheduler.abort(request_id)

    def stop(self, request_id: str, index: int) -> Usage | None:
        """End one choice of a request: what follows is not wanted."""
        for choice in self.scheduler.running:
            if choice.id == request_id and choice.request.index == index:
                self.scheduler.release(choice)
                return _usage(choice)
        return None

    @property
    def busy(self) -> bool:
        return self.scheduler.busy

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """One pass; returns what is new."""
        plan = self.scheduler.plan()
        if not plan:
            return []
        logits, asked = self._forward(plan)
        outputs: list[Output] = []
        asking: list[_Choice] = []
        rows: list[int] = []
        at = 0
        for (choice, count), wanted in zip(plan, asked, strict=True):
            start = choice.computed
            self.scheduler.computed(choice, count)
            if choice.prompt_logits:
                self._echo(choice, logits[at : at + wanted], start)
            at += wanted
            if choice.missing == 0:
                if choice.prompt_logits:
                    choice.prompt_logits = False
                    outputs.append(Output(choice.id, choice.request.index, echo=tuple(choice.echoed)))
                if choice.request.max_new_tokens > choice.made:
                    asking.append(choice)
                    rows.append(at - 1)
                else:
                    outputs.append(self._finish(choice, "length"))
        if asking:
            outputs += self._draw(asking, logits if len(rows) == len(logits) else logits[rows])
        return outputs

    def _forward(self, plan: list[tuple[_Choice, int]]) -> tuple[Tensor, list[int]]:
        """Logits, and how many rows of them each sequence of the plan has."""
        tokens: list[int] = []
        positions: list[int] = []
        lanes: list[int] = []
        wanted: list[int] = []
        asked: list[int] = []
        for choice, count in plan:
            start = choice.computed
            if count == 1:
                tokens.append(choice.tokens[start])
                positions.append(start)
                lanes.append(choice.lane)
            else:
                tokens += choice.tokens[start : start + count]
                positions += range(start, start + count)
                lanes += [choice.lane] * count
            if count > 1 or self._tabled[choice.lane] is not choice.blocks:
                self._tables[choice.lane, : len(choice.blocks)] = self._tabled[choice.lane] = choice.blocks
                choice.started = choice.started or time.monotonic()
            elif start % BLOCK == 0:
                self._tables[choice.lane, start // BLOCK] = choice.blocks[start // BLOCK]
            rows = count if choice.prompt_logits else int(start + count == len(choice.tokens))
            wanted += range(len(tokens) - rows, len(tokens))
            asked.append(rows)
        self.passes += 1
        self.rows += len(tokens)
        batch = Batch(_ints(tokens), _ints(positions), _ints(lanes), self._tables, _ints(wanted))
        return self.runner.forward(batch), asked

    def _draw(self, asking: list[_Choice], logits_BV: Tensor) -> list[Output]:
        wishes = [choice.request.sampling for choice in asking]
        told = [i for i, choice in enumerate(asking) if choice.request.logprobs is not None]
        raw = logits_BV[told].log_softmax(1) if told else logits_BV
        drawn = self._sample(
            logits_BV,
            wishes,
            [len(choice.tokens) for choice in asking],
            [(choice.tokens, choice.prompt) for choice in asking],
        )
        logprobs: list[Logprob | None] = [None] * len(asking)
        for row, i in enumerate(told):
            logprobs[i] = _logprob(raw[row], drawn[i], asking[i].request.logprobs or 0)
        outputs: list[Output] = []
        for choice, token, logprob in zip(asking, drawn, logprobs, strict=True):
            outputs += self._next(choice, token, logprob)
        return outputs

    def _next(self, choice: _Choice, token: int, logprob: Logprob | None) -> list[Output]:
        """What follows from the drawn token: perhaps a tool's answer, perhaps the end."""
        request = choice.request
        choice.first = choice.first or time.monotonic()
        if token in self._ends and not request.ignore_eos:  # also inside a tool call
            return [self._finish(choice, "stop", logprob)]
        tool = choice.expression is not None or choice.in_output
        choice.tokens.append(token)
        self.generated_tokens += 1
        forced, of_tool = self._follow_tool(choice, token)
        outputs = [Output(request.id, request.index, token, tool or of_tool, logprob)]
        room = min(request.max_new_tokens - choice.made, self.context - len(choice.tokens))
        for given in forced[: max(0, room)]:
            choice.tokens.append(given)
            self.generated_tokens += 1
            told = Logprob(given, 0.0) if request.logprobs is not None else None  # it was certain
            outputs.append(Output(request.id, request.index, given, tool=True, logprob=told))
        if choice.made >= request.max_new_tokens or len(choice.tokens) >= self.context:
            outputs.append(self._finish(choice, "length"))
        return outputs

    def _follow_tool(self, choice: _Choice, token: int) -> tuple[list[int], bool]:
        """(tokens that the tool says now, whether this token belongs to a call): the calculator's states."""
        start, end = self._python
        if token == start:
            choice.expression = []
            return [], True
        if token == end:
            forced = []
            if choice.expression is not None:
                result = calculate(self.tokenizer.decode(choice.expression))
                choice.expression = None
                if result is not None:
                    forced = [self._output[0], *self.tokenizer.encode(result), self._output[1]]
            return forced, True
        if choice.expression is not None:
            choice.expression.append(token)
            if len(choice.expression) > MAX_TOOL_TOKENS:
                choice.expression = None  # no call after all: go on as if it were text
            return [], True
        return [], False

    def _echo(self, choice: _Choice, logits_TV: Tensor, start: int) -> None:
        """Log-probabilities of the prompt's tokens `start` + 1 …, from the logits before each of them."""
        if not start:
            choice.echoed.append(Logprob(choice.tokens[0], None))
        following = choice.tokens[start + 1 : start + 1 + len(logits_TV)]
        raw = logits_TV[: len(following)].log_softmax(1)
        count = choice.request.logprobs or 0
        choice.echoed += [_logprob(row, token, count) for row, token in zip(raw, following, strict=True)]

    def _finish(self, choice: _Choice, reason: FinishReason, logprob: Logprob | None = None) -> Output:
        self.scheduler.release(choice)
        return Output(choice.id, choice.request.index, logprob=logprob, finish=reason, usage=_usage(choice))


def _ints(numbers: list[int]) -> Ints:
    return np.array(numbers, dtype=np.int32)


def _usage(choice: _Choice) -> Usage:
    now = time.monotonic()
    started = choice.started or now
    first = choice.first or now
    return Usage(choice.cached, started - choice.added, first - started, now - first)


def _logprob(row_V: Tensor, token: int, count: int) -> Logprob:
    top: tuple[tuple[int, float], ...] = ()
    if count:
        values, ids = row_V.topk(min(count, len(row_V)))
        top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Logprob(token, float(row_V[token]), top)
