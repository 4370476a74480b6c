"""A small CORE bundle in the layout of the real one, made from the standard library's help texts."""

from __future__ import annotations

import json
import pydoc_data.topics
import random
from pathlib import Path

CHANCE = {"continue": 25, "which": 50, "say": 0}
YAML = """icl_tasks:
- label: continue
  icl_task_type: multiple_choice
  dataset_uri: language/continue.jsonl
  num_fewshot: [2]
- label: which
  icl_task_type: schema
  dataset_uri: language/which.jsonl
  num_fewshot: [0]
- label: say
  icl_task_type: language_modeling
  dataset_uri: say.jsonl
  num_fewshot: [1]
  continuation_delimiter: "\\nAnswer: "
"""


def write_bundle(place: Path, examples: int = 12, words: int = 6) -> Path:
    """`place`, filled: three tasks of `examples` examples of about `words` words."""
    rng = random.Random(11)
    vocabulary = sorted(set(" ".join(pydoc_data.topics.topics.values()).split()))

    def text(count: int) -> str:
        return " ".join(rng.choices(vocabulary, k=count))

    rows: dict[str, list[dict[str, object]]] = {"continue": [], "which": [], "say": []}
    for _ in range(examples):
        choices = [text(rng.randint(1, 4)) for _ in range(4)]
        rows["continue"].append({"query": text(words), "choices": choices, "gold": rng.randrange(4)})
        options = [text(words), text(words + 1)]
        rows["which"].append({"context_options": options, "continuation": text(3), "gold": rng.randrange(2)})
        rows["say"].append({"context": text(words) + " ", "continuation": text(1)})
    (place / "eval_data" / "language").mkdir(parents=True)
    (place / "core.yaml").write_text(YAML)
    table = "".join(f"{label},{chance}\n" for label, chance in CHANCE.items())
    (place / "eval_meta_data.csv").write_text("Eval Task,Random baseline\n" + table)
    for label, found in rows.items():
        folder = place / "eval_data" / ("" if label == "say" else "language")
        (folder / f"{label}.jsonl").write_text("\n".join(map(json.dumps, found)) + "\n")
    return place
