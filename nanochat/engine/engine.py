"""Continuous batching over slots: requests join and leave between steps.

One step admits waiting requests (each prompt is computed alone), then makes one token for every running
sequence in one batched forward pass. The same request gives the same tokens alone or among others.

# Shapes: B rows, T tokens, V vocabulary.

Not covered: chunked prefill, prefix caching, log-probabilities, compiled or quantised models.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from nanochat.engine.cache import SlotCache
from nanochat.engine.calculator import calculate
from nanochat.engine.sampling import Sampling, choose
from nanochat.engine.scheduler import Scheduler
from nanochat.gpt import GPT
from nanochat.tokenizer import Tokenizer

#: float32 matrix products round differently for 1, 2–3 and ≥ 4 rows; padding makes every batch alike
MIN_ROWS = 4
MAX_TOOL_TOKENS = 64
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Request:
    """One sequence to generate. `index` tells the choices of one request apart."""

    id: str
    prompt: Sequence[int]
    max_new_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    index: int = 0


@dataclass(frozen=True)
class Output:
    """One token of a sequence, or its end. A token of a tool call (`tool`) is not said to the user."""

    id: str
    index: int
    token: int | None
    tool: bool = False
    finish: FinishReason | None = None


@dataclass
class _Sequence:
    request: Request
    tokens: list[int]  # prompt and what was generated
    held: int = 0  # tokens in the cache
    made: int = 0
    forced: deque[int] = field(default_factory=deque)
    expression: list[int] | None = None  # tokens since <|python_start|>
    in_output: bool = False


class Engine:
    """Generates for many requests at once. Not thread-safe: one thread adds, steps and aborts."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, slots: int = 8, capacity: int | None = None) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.context = min(capacity or model.cfg.sequence_len, model.cfg.sequence_len)
        self._device = model.lm_head.weight.device
        # one slot more than is scheduled: padding rows write there
        self._cache = SlotCache(model.cfg, slots + 1, self.context, self._device, model.compute_dtype)
        self._padding = (slots, 0)
        self.scheduler: Scheduler[_Sequence] = Scheduler(slots)
        special = tokenizer.special
        self._ends = {special("<|assistant_end|>"), tokenizer.bos}
        self._python = (special("<|python_start|>"), special("<|python_end|>"))
        self._output = (special("<|output_start|>"), special("<|output_end|>"))
        never = [special(name) for name in ("<|user_start|>", "<|user_end|>", "<|assistant_start|>")]
        self._never = torch.tensor([*never, *self._output], device=self._device)

    def add(self, request: Request) -> None:
        """Queue a request. Raises ValueError when its prompt is empty or fills the whole context."""
        if not 0 < len(request.prompt) < self.context:
            raise ValueError(
                f"a prompt of {len(request.prompt)} tokens does not fit a context of {self.context}"
            )
        self.scheduler.add(request.id, _Sequence(request, list(request.prompt)))

    def abort(self, request_id: str) -> None:
        """Forget a request; its slots are free before the next step."""
        self.scheduler.abort(request_id)

    def stop(self, request_id: str, index: int) -> None:
        """End one choice of a request: what follows is not wanted."""
        for slot, (owner, sequence) in list(self.scheduler.running.items()):
            if owner == request_id and sequence.request.index == index:
                self.scheduler.release(slot)

    @property
    def busy(self) -> bool:
        return self.scheduler.busy

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """Advance every sequence by one token; returns what is new."""
        outputs: list[Output] = []
        fresh = self.scheduler.admit()
        for slot, sequence in fresh:
            logits_V = self._forward([(slot, sequence)], len(sequence.tokens))[0]
            outputs += self._next(slot, sequence, logits_V)
        joined = {slot for slot, _ in fresh}
        rows = [(slot, seq) for slot, (_, seq) in self.scheduler.running.items() if slot not in joined]
        if rows:
            logits_BV = self._forward(rows, 1)
            for (slot, sequence), logits_V in zip(rows, logits_BV, strict=False):
                outputs += self._next(slot, sequence, logits_V)
        return outputs

    def _forward(self, rows: list[tuple[int, _Sequence]], count: int) -> Tensor:
        """Logits (B, V) after the last `count` tokens of each row, which are not in the cache yet."""
        ids = [sequence.tokens[-count:] for _, sequence in rows]
        places = [(slot, sequence.held) for slot, sequence in rows]
        if count == 1:
            missing = max(0, MIN_ROWS - len(rows))
            ids += [[self.tokenizer.bos]] * missing
            places += [self._padding] * missing
        ids_BT = torch.tensor(ids, device=self._device)
        starts_B = torch.tensor([past for _, past in places], device=self._device)
        positions_BT = starts_B[:, None] + torch.arange(count, device=self._device)
        hidden_BTD = self.model.hidden(ids_BT, positions_BT, self._cache.layers(places))
        for _, sequence in rows:
            sequence.held += count
        logits_BV = self.model.logits(hidden_BTD[:, -1])
        logits_BV[:, self._never] = float("-inf")
        return logits_BV

    def _next(self, slot: int, sequence: _Sequence, logits_V: Tensor) -> list[Output]:
        request = sequence.request
        tool = sequence.expression is not None or sequence.in_output
        if sequence.forced:
            token = sequence.forced.popleft()
        else:
            token = choose(logits_V, request.sampling, len(sequence.tokens))
        if token in self._ends:  # also inside a tool call; forced tokens are none of these
            return [self._finish(slot, request, "stop")]
        sequence.tokens.append(token)
        sequence.made += 1
        tool = self._follow_tool(sequence, token) or tool
        outputs = [Output(request.id, request.index, token, tool)]
        if sequence.made >= request.max_new_tokens or len(sequence.tokens) >= self.context:
            outputs.append(self._finish(slot, request, "length"))
        return outputs

    def _follow_tool(self, sequence: _Sequence, token: int) -> bool:
        """The calculator's state machine; True for tokens that belong to a call or its result."""
        start, end = self._python
        if token == start:
            sequence.expression = []
            return True
        if token == end:
            if sequence.expression is not None:
                result = calculate(self.tokenizer.decode(sequence.expression))
                sequence.expression = None
                if result is not None:
                    sequence.forced.extend([self._output[0], *self.tokenizer.encode(result), self._output[1]])
            return True
        if token == self._output[0]:
            sequence.in_output = True
            return True
        if token == self._output[1]:
            sequence.in_output = False
            return True
        if sequence.expression is not None:
            sequence.expression.append(token)
            if len(sequence.expression) > MAX_TOOL_TOKENS:
                sequence.expression = None  # no call after all: go on as if it were text
            return True
        return False

    def _finish(self, slot: int, request: Request, reason: FinishReason) -> Output:
        self.scheduler.release(slot)
        return Output(request.id, request.index, None, finish=reason)


def generate_batch(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int = 0,
    seed: int = 0,
    batch_size: int = 8,
) -> list[list[int]]:
    """New ids for every prompt, tool tokens included, without the end token.

    All prompts run as one continuous batch of `batch_size` slots; the model's training mode is kept.
    Raises ValueError for a prompt that does not fit the context.
    """
    training = model.training
    longest = max((len(prompt) for prompt in prompts), default=1)
    engine = Engine(model, tokenizer, max(1, min(batch_size, len(prompts))), longest + max_new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    for index, prompt in enumerate(prompts):
        sampling = Sampling(temperature, top_k, seed=seed + index)
        engine.add(Request("batch", prompt, max_new_tokens, sampling, index))
    while engine.busy:
        for output in engine.step():
            if output.token is not None:
                answers[output.index].append(output.token)
    model.train(training)
    return answers
