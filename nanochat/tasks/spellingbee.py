"""Task `spellingbee`: how often a letter is in a word, after karpathy/nanochat's.

An answer spells the word and counts along, then lets the tool count, then says the number:

    l e t 1 t 2 e r   "letter".count("t") → 2   #### 2
"""

from __future__ import annotations

import random

from nanochat.tasks.gsm8k import final_number
from nanochat.tasks.task import Content, Example, Generator, dialogue, shuffled
from nanochat.tasks.words import split_words, training_word

HELD_OUT_PROBLEMS = 256
ABSENT = 0.1  # share of questions about a letter that is not in the word
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
TRAIN = (
    "How many {l} are in {w}?", "How many {l} are in the word {w}?", "How many {l}'s are in {w}?",
    "Count the letter {l} in {w}.", "Count the {l} in {w}", "count {l} in {w}",
    "How often is {l} in {w}?", "How often does {l} occur in {w}?", "How many times is {l} in {w}?",
    "What is the number of {l} in {w}?", "Tell me how many {l} {w} has.", "how many {l} in {w}",
    "Please count the letter {l} in the word {w}.", "In {w}, how many {l} are there?",
    "Find the number of {l} in the word {w}.", "How many letters {l} does {w} have?",
    "Number of {l} in {w}?", "Can you count the {l} in {w}?", "{w}: how many {l}?",
    "How many times does the letter {l} appear in {w}?",
)  # fmt: skip
HELD_OUT = (
    "How many {l} are there in {w}?",
    "Please count the {l} in {w}.",
    "How often does the letter {l} appear in {w}?",
    "How many times does {l} occur in the word {w}?",
)


class SpellingBee(Generator):
    """Held out: words and wordings."""

    name = "spellingbee"
    title = "how often a letter is in a word"
    share = 0.3
    max_new_tokens = 128

    def sample(self, rng: random.Random) -> Example:
        word = training_word(rng)
        return _problem(rng.choice(TRAIN), word, _letter(word, rng))

    def problems(self) -> list[Example]:
        """256 of the held-out words' letters; each word comes before any comes twice."""
        rng, words = random.Random(3), split_words()[1]
        found: dict[tuple[str, str], Example] = {}
        while len(found) < HELD_OUT_PROBLEMS:
            word = words[len(found) % len(words)]
            letter = _letter(word, rng)
            if (word, letter) not in found:
                wording = HELD_OUT[len(found) % len(HELD_OUT)]
                found[word, letter] = _problem(wording, word, letter)
        return shuffled(list(found.values()))

    def evaluate(self, example: Example, text: str) -> bool:
        return final_number(text) == example.expected


def _letter(word: str, rng: random.Random) -> str:
    """A letter of the word, letters that come twice as likely as that; now and then one that it lacks."""
    if rng.random() < ABSENT:
        return rng.choice([letter for letter in _ALPHABET if letter not in word])
    return rng.choice(word)


def _problem(wording: str, word: str, letter: str) -> Example:
    count = str(word.count(letter))
    return dialogue(wording.format(l=letter, w=word), _answer(word, letter, count), count)


def _answer(word: str, letter: str, count: str) -> Content:
    spelled, seen = [], 0
    for one in word:
        spelled.append(one)
        if one == letter:
            seen += 1
            spelled.append(str(seen))
    return [
        {"type": "text", "text": " ".join(spelled) + "\n"},
        {"type": "python", "text": f'"{word}".count("{letter}")'},
        {"type": "python_output", "text": count},
        {"type": "text", "text": f"#### {count}"},
    ]


TASKS = (SpellingBee,)
