"""Answers of a model to the problems of a task, many at once: text by the engine, letters by logits.

Nothing here looks at the model answer of a problem. Random numbers depend on the seed, the task and the
problem's number, not on what is answered beside it: ranks and batch size change no answer on a CPU.
A question that is longer than the context loses its beginning.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nanochat.chat import render_prompt
from nanochat.engine.engine import Engine, Request
from nanochat.engine.runner import Runner
from nanochat.engine.sampling import Sampling
from nanochat.evals.scoring import Scorer
from nanochat.tasks import Task
from nanochat.tokenizer import Tokenizer

LETTERS_AT_ONCE = 256  # questions whose ids are in memory


def _go_on() -> None:
    """Nobody asks to stop."""


@dataclass(frozen=True)
class Answerer:
    """A model that answers. `before_pass` is called before every forward pass; what it raises ends it."""

    runner: Runner
    tokenizer: Tokenizer
    lanes: int
    seed: int = 0
    before_pass: Callable[[], None] = _go_on

    def letters(self, task: Task, numbers: Sequence[int]) -> list[str]:
        """The likeliest letter for each question; equally likely ones are decided by a seeded draw."""
        scorer = Scorer(self.runner, self.before_pass)
        found = []
        for start in range(0, len(numbers), LETTERS_AT_ONCE):
            some = numbers[start : start + LETTERS_AT_ONCE]
            examples = [task[number] for number in some]
            prompts = [
                render_prompt(self.tokenizer, example.prompt)[-self.runner.context :] for example in examples
            ]
            columns = [[self.tokenizer.encode(letter)[0] for letter in one.letters] for one in examples]
            for number, example, logits in zip(some, examples, scorer.last(prompts, columns), strict=True):
                best = [at for at, logit in enumerate(logits) if logit == max(logits)]
                draw = random.Random(f"{self.seed} {task.name} tie {number}")
                found.append(example.letters[draw.choice(best)])
        return found

    def texts(
        self, task: Task, numbers: Sequence[int], *, max_new_tokens: int, temperature: float, top_k: int,
        samples: int = 1,
    ) -> list[list[list[int]]]:  # fmt: skip
        """`samples` answers to each problem, as ids without the end token; all in one continuous batch."""
        engine = Engine(self.runner, self.tokenizer, self.lanes)
        longest = self.runner.context - min(max_new_tokens, self.runner.context // 2)
        for at, number in enumerate(numbers):
            prompt = render_prompt(self.tokenizer, task[number].prompt)[-longest:]
            seeds = random.Random(f"{self.seed} {task.name} {number}")
            wishes = [Sampling(temperature, top_k, seed=seeds.getrandbits(63)) for _ in range(samples)]
            engine.add(*(Request(str(at), prompt, max_new_tokens, wish, i) for i, wish in enumerate(wishes)))
        ids: list[list[list[int]]] = [[[] for _ in range(samples)] for _ in numbers]
        while engine.busy:
            self.before_pass()
            for output in engine.step():
                if output.token is not None:
                    ids[int(output.id)][output.index].append(output.token)
        return ids


def final_text(tokenizer: Tokenizer, ids: list[int]) -> str:
    """What the assistant says after its last tool output."""
    end = tokenizer.special("<|output_end|>")
    last = len(ids) - ids[::-1].index(end) if end in ids else 0
    return tokenizer.decode(ids[last:])
