"""Task `smalltalk`: greetings, what the model can do, and a modest answer to everything else."""

from __future__ import annotations

import random

from nanochat.tasks.task import Example, Generator, dialogue, shuffled

GREETING = "Hello! I am nanochat. Ask me to spell a word or to add two numbers."
ABILITIES = "I can say who I am, spell words and add or subtract small numbers."
WELCOME = "You are welcome."
FAREWELL = "Goodbye!"
MODEST = "I am a very small model and do not know that."

#: answer → (wordings to train on, held-out wordings)
_FIXED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    GREETING: (
        (
            "Hi", "Hi!", "Hello", "Hello!", "Hey", "Hey!", "Good morning", "Good morning!", "Good day",
            "Good afternoon!", "hello there", "hi there", "How are you?", "How are you, my friend?",
            "How are you doing?", "Hi, how are you?", "Hello, nanochat!", "Greetings!",
        ),
        ("Hello there!", "hi", "Good evening!", "Hey there", "Hello, how are you?", "Hi nanochat!"),
    ),
    ABILITIES: (
        (
            "What can you do?", "What can I ask you?", "How can you help me?", "What are you good at?",
            "Help", "Can you help me?", "What do you know?", "Tell me what you can do.",
            "What are your skills?", "What should I ask you?", "What can you do for me?", "How do I use you?",
        ),
        ("What things can you do?", "Please help me.", "Show me what you can do.", "What may I ask you?"),
    ),
    WELCOME: (
        (
            "Thanks", "Thanks!", "Thank you.", "Thank you!", "Thanks a lot!", "Thank you very much.",
            "Great, thanks!", "OK, thanks.",
        ),
        ("Many thanks!", "OK, thank you!", "Thank you so much."),
    ),
    FAREWELL: (
        ("Bye", "Bye!", "Goodbye.", "Goodbye!", "See you!", "See you later.", "Good night.", "Bye bye"),
        ("Good night!", "See you soon!", "OK, goodbye."),
    ),
}  # fmt: skip
_TOPICS = (
    "the moon", "cats", "history", "music", "football", "the weather", "France", "Germany", "Japan", "love",
    "money", "computers", "the sea", "space", "dinosaurs", "cooking", "politics", "a good book",
    "the stock market", "physics", "chess", "painting", "the brain", "electricity", "Shakespeare",
    "the Romans", "bread", "trees", "whales", "time", "Python", "the internet", "gravity", "volcanoes",
    "tea", "horses", "Einstein", "the future", "dreams", "health",
)  # fmt: skip
_TEST_TOPICS = (
    "Italy",
    "the stars",
    "birds",
    "mathematics",
    "tennis",
    "coffee",
    "Africa",
    "movies",
    "Mozart",
    "snow",
)
_ASK = (
    "What is the capital of {t}?", "Tell me a story about {t}.", "Write a poem about {t}.", "Explain {t}.",
    "What do you think about {t}?", "Why is {t} important?", "Who discovered {t}?", "How does {t} work?",
    "Tell me something about {t}.", "What is {t}?", "Where can I find {t}?", "Give me advice about {t}.",
    "Do you like {t}?", "Write an essay about {t}.", "How old is {t}?", "Tell me a joke about {t}.",
    "When was {t} invented?", "Can you explain {t} to me?", "What is the best thing about {t}?",
    "Translate {t} into French.", "Who invented {t}?", "How big is {t}?", "What happened to {t}?",
    "Please tell me about {t}.", "Please write about {t}.", "Why do we need {t}?", "Why do you like {t}?",
    "How do I learn about {t}?", "What can I do with {t}?", "Could you describe {t}?",
    "Is {t} good for me?", "Please write a poem about {t}.", "Please translate {t}.",
    "Please describe {t} to me.", "Please draw {t}.", "Please find {t}.", "Please teach me about {t}.",
    "Why do we love {t}?", "Why do children like {t}?",
)  # fmt: skip
_ODD = (
    "Tell me a joke.", "What time is it?", "What day is today?", "Sing a song.", "Write some code.", "asdf",
    "How is the weather?", "I am hungry.", "I love you.", "Make me laugh.", "What is the meaning of life?",
    "Give me a recipe.", "What should I eat?", "I am bored.", "Where am I?", "Why is the sky blue?",
    "Write a letter to my boss.", "Who is the president?", "How many people live on earth?",
    "Tell me a story.", "qwerty",
)  # fmt: skip
_TEST_ASK = (
    "What can you tell me about {t}?",
    "Please explain {t}.",
    "Write a song about {t}.",
    "Why do people like {t}?",
)


class Smalltalk(Generator):
    """Held out: other greetings and thanks, other topics in other questions."""

    name = "smalltalk"
    title = "greetings and modest answers"
    share = 0.12

    def sample(self, rng: random.Random) -> Example:
        if rng.random() < 0.5:
            odd = rng.random() < 0.2
            return dialogue(
                rng.choice(_ODD) if odd else rng.choice(_ASK).format(t=rng.choice(_TOPICS)), MODEST
            )
        answer = rng.choice(list(_FIXED))
        return dialogue(rng.choice(_FIXED[answer][0]), answer)

    def problems(self) -> list[Example]:
        found = [dialogue(text, answer) for answer, (_, held) in _FIXED.items() for text in held]
        found += [dialogue(ask.format(t=topic), MODEST) for ask in _TEST_ASK for topic in _TEST_TOPICS]
        return shuffled(found)

    def evaluate(self, example: Example, text: str) -> bool:
        return text.strip() == example.expected


TASKS = (Smalltalk,)
