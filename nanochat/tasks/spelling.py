"""Task `spelling`: the letters of a word, one by one.

A word reaches the model as a few tokens; to spell it, it must know the letters inside each of them.
Answers are "c a t": with blanks every letter is one token, with dashes it would be two.
"""

from __future__ import annotations

import random

from nanochat.tasks.task import Example, Generator, dialogue
from nanochat.tasks.words import split_words, training_word

TRAIN = (
    "Spell the word {w}.", "Spell the word {w}", "Spell {w}.", "Spell {w}", "spell {w}",
    "spell the word {w}", "How do you spell {w}?", "Please spell {w}.", "Can you spell the word {w}?",
    "What are the letters of {w}?", "How do you spell the word {w}?", "Can you spell {w}?",
    "How is the word {w} written?", "How is {w} written?", "Give me the letters of {w}.",
    "Spell {w} for me.", "Spell the word {w}, please.", "Take {w} and spell it.",
    "Write {w} letter by letter.", "How would {w} be spelled?", "I want to know how {w} is spelled.",
    "Which letters are in {w}?", "{w}: spell it.", "How are the letters in {w} written?",
    "Would you spell {w}?", "Will you spell the word {w}?", "Can you please spell {w}?",
    "Do you know how to spell {w}?",
)  # fmt: skip
HELD_OUT = (
    "Could you spell {w}?",
    "Please spell the word {w}.",
    "How is {w} spelled?",
    "Spell the word {w}.",
)


class Spelling(Generator):
    """Held out: words, and all wordings of the questions but one."""

    name = "spelling"
    title = "the letters of a word"
    share = 0.56

    def sample(self, rng: random.Random) -> Example:
        word = training_word(rng)
        return dialogue(rng.choice(TRAIN).format(w=word), " ".join(word))

    def problems(self) -> list[Example]:
        return [
            dialogue(HELD_OUT[number % len(HELD_OUT)].format(w=word), " ".join(word))
            for number, word in enumerate(split_words()[1])
        ]

    def evaluate(self, example: Example, text: str) -> bool:
        return text.strip() == example.expected


TASKS = (Spelling,)
