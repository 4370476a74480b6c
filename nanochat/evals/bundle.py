"""The CORE bundle on disk: which tasks there are, their examples and chance levels.

eval_bundle/core.yaml            icl_tasks: label, icl_task_type, dataset_uri, num_fewshot, continuation_delimiter
eval_bundle/eval_meta_data.csv   columns `Eval Task` and `Random baseline` (percent)
eval_bundle/eval_data/…          JSON lines
"""  # noqa: E501

from __future__ import annotations

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from nanochat.errors import DataError

KINDS = ("multiple_choice", "schema", "language_modeling")
SHUFFLE_SEED = 1337
#: labels of CORE (DCLM, Li et al. 2024): the metric is the mean over exactly these
CORE_TASKS = (
    "hellaswag_zeroshot", "jeopardy", "bigbench_qa_wikidata", "arc_easy", "arc_challenge", "copa",
    "commonsense_qa", "piqa", "openbook_qa", "lambada_openai", "hellaswag", "winograd", "winogrande",
    "bigbench_dyck_languages", "agi_eval_lsat_ar", "bigbench_cs_algorithms", "bigbench_operators",
    "bigbench_repeat_copy_logic", "squad", "coqa", "boolq", "bigbench_language_identification",
)  # fmt: skip
FIELDS = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}
Example = dict[str, Any]


@dataclass(frozen=True)
class CoreTask:
    """One row of core.yaml with its chance level (a share, not percent)."""

    label: str
    kind: str
    file: Path
    shots: int
    delimiter: str
    chance: float

    def examples(self, limit: int = -1) -> list[Example]:
        """In the order of the benchmark, the first `limit` of them. Raises DataError."""
        _need(self.file)
        found = []
        with self.file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    example = json.loads(line)
                    for field in FIELDS[self.kind]:
                        example[field]
                except (ValueError, KeyError, TypeError) as error:
                    raise DataError(
                        f"{self.file}, line {number}: no {self.kind} example ({error!r})"
                    ) from None
                found.append(example)
        random.Random(SHUFFLE_SEED).shuffle(found)
        return found if limit < 0 else found[:limit]


def read_bundle(place: Path) -> list[CoreTask]:
    """The tasks of a bundle. Raises DataError that names the missing file and how to get it."""
    _need(place / "core.yaml")
    _need(place / "eval_meta_data.csv")
    try:
        rows = yaml.safe_load((place / "core.yaml").read_text(encoding="utf-8"))["icl_tasks"]
        with (place / "eval_meta_data.csv").open(encoding="utf-8", newline="") as stream:
            chance = {row["Eval Task"]: float(row["Random baseline"]) for row in csv.DictReader(stream)}
        tasks = [
            CoreTask(
                str(row["label"]),
                str(row["icl_task_type"]),
                place / "eval_data" / row["dataset_uri"],
                int(row["num_fewshot"][0]),
                str(row.get("continuation_delimiter", " ")),
                chance[row["label"]] / 100,
            )
            for row in rows
        ]
    except (yaml.YAMLError, KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{place} is no CORE bundle: {error!r} in core.yaml or eval_meta_data.csv") from None
    for task in tasks:
        if task.kind not in KINDS:
            raise DataError(f"{place / 'core.yaml'}: task {task.label} has the unknown type {task.kind!r}")
    return tasks


def _need(file: Path) -> None:
    if not file.is_file():
        bundle = next((p for p in (file, *file.parents) if p.name == "eval_bundle"), file.parent)
        raise DataError(
            f"{file} is missing: CORE needs the bundle of upstream nanochat (eval_bundle.zip, 162 MB): fetch "
            f"it where there is a network and `unzip eval_bundle.zip -d {bundle.parent}`; or "
            "`nanochat data get core` for 14 of its 22 tasks"
        )
