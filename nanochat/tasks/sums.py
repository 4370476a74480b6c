"""Task `sums`: add and subtract numbers below 100 with the calculator.

The model learns to call the tool and to repeat its result; the engine computes.
"""

from __future__ import annotations

import random
from functools import cache

from nanochat.tasks.task import Content, Example, Generator, dialogue, shuffled

BELOW = 100
HELD_OUT_PAIRS = 400
_PLUS = (
    "What is {a}+{b}?", "What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?", "{a}+{b}=?",
    "{a}+{b}", "{a} + {b}", "{a} + {b} =", "Compute {a} + {b}.", "What is {a} plus {b}?", "What's {a}+{b}?",
    "Calculate {a}+{b}.", "What is the sum of {a} and {b}?",
)  # fmt: skip
_MINUS = (
    "What is {a}-{b}?", "What is {a} - {b}?", "How much is {a} minus {b}?", "{a}-{b}=?", "{a}-{b}",
    "{a} - {b}", "Compute {a} - {b}.", "What is {a} minus {b}?", "Subtract {b} from {a}.",
)  # fmt: skip
_TEST_PLUS = ("How much is {a}+{b}?", "Please add {a} and {b}.", "Calculate {a} + {b}.")
_TEST_MINUS = ("How much is {a}-{b}?", "Calculate {a} - {b}.")


@cache
def _split_pairs() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    pairs = [(a, b) for a in range(BELOW) for b in range(BELOW)]
    random.Random(2).shuffle(pairs)
    return pairs[HELD_OUT_PAIRS:], pairs[:HELD_OUT_PAIRS]


class Sums(Generator):
    """Held out: 400 pairs of numbers, and wordings."""

    name = "sums"
    title = "sums of numbers below 100"
    share = 0.2

    def sample(self, rng: random.Random) -> Example:
        a, b = rng.choice(_split_pairs()[0])
        wordings = _PLUS if rng.random() < 0.65 else _MINUS
        return dialogue(rng.choice(wordings).format(a=a, b=b), _answer(a, b, wordings is _PLUS)[0])

    def problems(self) -> list[Example]:
        found = []
        for number, (a, b) in enumerate(_split_pairs()[1]):
            plus = number % 3 < 2
            wordings = _TEST_PLUS if plus else _TEST_MINUS
            answer, result = _answer(a, b, plus)
            found.append(dialogue(wordings[number % len(wordings)].format(a=a, b=b), answer, str(result)))
        return shuffled(found)

    def evaluate(self, example: Example, text: str) -> bool:
        return text.strip() == example.expected


def _answer(a: int, b: int, plus: bool) -> tuple[Content, int]:
    result = a + b if plus else a - b
    parts = [
        {"type": "python", "text": f"{a}+{b}" if plus else f"{a}-{b}"},
        {"type": "python_output", "text": str(result)},
        {"type": "text", "text": str(result)},
    ]
    return parts, result


TASKS = (Sums,)
