"""`python -m tests.clients.witness`: one checkpoint scored by base_eval and by lm-evaluation-harness.

Both read the same files, in which every text fits the model's context, without worked examples; ours through
`scripts.base_eval`, the harness through `/v1/completions` of a real server, both in float32. What must agree:
the share of questions whose right choice has the highest summed log-likelihood (`acc` there, `acc_sum` here),
and of texts that greedy decoding continues as they go on.
Not covered: worked examples, which each harness draws in its own way, and what `comparable` leaves out.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from nanochat.artefacts import checkpoint_path
from nanochat.checkpoint import read_meta
from nanochat.configurator import ConfigError
from nanochat.errors import DataError
from nanochat.evals.bundle import CoreTask, Example, read_bundle
from nanochat.evals.core import chosen, prompts
from nanochat.evals.core_data import build
from nanochat.evals.scoring import common_start
from nanochat.interop import hf
from nanochat.once import run_once
from nanochat.paths import step_dir
from nanochat.tokenizer import Tokenizer
from tests.clients.packages import LM_EVAL, LM_EVAL_VERSION, NotInstallable, install

TASKS = "copa,openbook_qa,arc_easy,arc_challenge,piqa,commonsense_qa,winogrande,lambada_openai"
POINTS = 0.5
#: of a model to score where there is none: about three minutes on two cores
TOKENIZER = {"vocab_size": 512}
BASE = {
    "depth": 4, "max_seq_len": 256, "device_batch_size": 8, "total_batch_size": 4096, "num_iterations": 200,
    "eval_every": 0, "sample_every": 0, "core_metric_every": 0, "model_tag": "witness",
}  # fmt: skip
PROGRAM = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager

url, model, tokenizer, tasks, context, names = sys.argv[1:]
results = lm_eval.simple_evaluate(
    model="local-completions", tasks=names.split(","), batch_size=16, bootstrap_iters=0, log_samples=False,
    model_args={"model": model, "base_url": url + "/v1/completions", "tokenizer": tokenizer,
                "max_length": int(context), "tokenized_requests": True, "add_bos_token": True},
    task_manager=TaskManager(include_path=tasks, include_defaults=False),
)
print(json.dumps({"version": lm_eval.__version__, "results": results["results"],
                  "counts": results["n-samples"]}))
"""


@dataclass(frozen=True)
class Row:
    """One task. Shares of 1; `core` by CORE's rule (mean per token), `norm` by characters (`acc_norm`)."""

    task: str
    kind: str
    asked: int
    ours: float
    theirs: float
    core: float | None = None
    norm: float | None = None

    @property
    def points(self) -> float:
        """How far the two are apart."""
        return 100 * abs(self.ours - self.theirs)


# ---------------------------------------------------------------- the same questions for both


def prepare(home: Path, tasks: Sequence[CoreTask], checkpoint: Path, limit: int = -1) -> dict[str, int]:
    """Write `home/eval_bundle` for base_eval and `home/lm_eval/*.yaml`, which read the bundle's files.

    At most `limit` comparable examples of a task (-1: all). Returns how many of each task are not.
    """
    tokenizer = Tokenizer.load(checkpoint)
    context = context_of(checkpoint)
    bundle = home / "eval_bundle"
    for place in (bundle, home / "lm_eval"):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    (bundle / "eval_data").mkdir()
    rows, left_out = [], {}
    for task in tasks:
        whole = task.examples()
        fitting = [example for example in whole if comparable(task, tokenizer, example, context)]
        left_out[task.label] = len(whole) - len(fitting)
        kept = fitting if limit < 0 else fitting[:limit]
        file = bundle / "eval_data" / f"{task.label}.jsonl"
        file.write_text("".join(json.dumps(example) + "\n" for example in kept), encoding="utf-8")
        rows.append(
            {
                "label": task.label,
                "icl_task_type": task.kind,
                "dataset_uri": file.name,
                "num_fewshot": [0],
                "continuation_delimiter": task.delimiter,
            }
        )
        text = yaml.safe_dump(harness_task(task, file), sort_keys=False)
        (home / "lm_eval" / f"{task.label}.yaml").write_text(text, encoding="utf-8")
    (bundle / "core.yaml").write_text(yaml.safe_dump({"icl_tasks": rows}, sort_keys=False))
    with (bundle / "eval_meta_data.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["Eval Task", "Random baseline"])
        table.writerows([task.label, 100 * task.chance] for task in tasks)
    return left_out


def context_of(checkpoint: Path) -> int:
    """Tokens a model reads at most."""
    return int(read_meta(checkpoint)["model_config"]["sequence_len"])


def comparable(task: CoreTask, tokenizer: Tokenizer, example: Example, context: int) -> bool:
    """Whether both sides see the same text, and score the same tokens of it.

    Not a text that is longer than the context with the one token that the harness has generated behind it.
    Not a schema whose beginnings end alike, if only in a letter: CORE scores that end as well.
    """
    texts = [tokenizer.encode(text) for text in prompts(replace(task, shots=0), [example], 0)]
    if 1 + max(map(len, texts)) >= context:
        return False
    if task.kind != "schema":
        return True
    scored = len(tokenizer.encode(task.delimiter + example["continuation"]))
    return common_start([ids[::-1] for ids in texts]) == scored


def harness_task(task: CoreTask, file: Path) -> dict[str, Any]:
    """The task in the harness's words. Its delimiter is a space, so the rest of ours ends the question."""
    assert task.delimiter.endswith(" ")
    behind = task.delimiter[:-1]
    texts: dict[str, dict[str, Any]] = {
        "multiple_choice": {
            "output_type": "multiple_choice",
            "doc_to_text": "{{query}}" + behind,
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{gold}}",
        },
        "schema": {
            "output_type": "multiple_choice",
            "doc_to_text": "gold",  # with a number here the choices come before the target
            "doc_to_choice": "{{context_options}}",
            "doc_to_target": "{{continuation}}" + behind,
        },
        "language_modeling": {
            "output_type": "loglikelihood",
            "doc_to_text": "{{context.strip()}}" + behind,
            "doc_to_target": "{{' ' + continuation}}",  # this type puts no delimiter before it
        },
    }
    metrics = ["acc", "acc_norm"] if task.kind == "multiple_choice" else ["acc"]
    return {
        "task": task.label,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"validation": str(file)}},
        "validation_split": "validation",
        **texts[task.kind],
        "target_delimiter": " ",
        "metric_list": [{"metric": metric} for metric in metrics],
    }


# ---------------------------------------------------------------- the two sides


def ours(home: Path, checkpoint: Path) -> dict[str, dict[str, Any]]:
    """What `scripts.base_eval` writes of every task of `home/eval_bundle`."""
    command = [sys.executable, "-m", "scripts.base_eval", f"--checkpoint={checkpoint}", "--dtype=float32"]
    environ = {**os.environ, "NANOCHAT_BASE_DIR": str(home)}
    shutil.rmtree(home / "base_eval", ignore_errors=True)
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"base_eval failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    (found,) = (home / "base_eval").glob("*.json")
    tasks: dict[str, dict[str, Any]] = json.loads(found.read_text())["tasks"]
    return tasks


def theirs(home: Path, checkpoint: Path, lm_eval: Path, url: str, model: str) -> dict[str, Any]:
    """The harness's results, by the tasks in `home/lm_eval` and the server at `url`."""
    if not (home / "hf" / "config.json").exists():
        hf.export(checkpoint, home / "hf")  # it counts tokens itself
    names = ",".join(sorted(file.stem for file in (home / "lm_eval").glob("*.yaml")))
    environ = {
        **os.environ, "PYTHONPATH": str(lm_eval), "HF_HOME": str(home / "cache"), "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }  # fmt: skip
    arguments = [url, model, str(home / "hf"), str(home / "lm_eval"), str(context_of(checkpoint)), names]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, cwd=home)
    if done.returncode:
        raise RuntimeError(f"lm-evaluation-harness failed:\n{done.stderr[-3000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert said["version"] == LM_EVAL_VERSION
    return said


def compare(home: Path, checkpoint: Path, lm_eval: Path, url: str, model: str) -> list[Row]:
    """Both sides of every task that `prepare` wrote."""
    kinds = {task.label: task.kind for task in read_bundle(home / "eval_bundle")}
    here = ours(home, checkpoint)
    said = theirs(home, checkpoint, lm_eval, url, model)
    rows = []
    for task, kind in kinds.items():
        mine, other = here[task], said["results"][task]
        asked = said["counts"][task]["effective"]
        assert asked == mine["total"], f"{task}: {mine['total']} examples here, {asked} there"
        chooses = kind != "language_modeling"
        rows.append(
            Row(
                task, kind, asked, mine["acc_sum"] if chooses else mine["accuracy"],
                other["acc,none"], mine["accuracy"] if chooses else None, other.get("acc_norm,none"),
            )
        )  # fmt: skip
    return rows


@contextmanager
def serve(home: Path, checkpoint: Path) -> Iterator[tuple[str, str]]:
    """A real service on `home`, in float32: its URL, and the checkpoint's name there."""
    from server.settings import Settings
    from tests.server.inference.conftest import insert
    from tests.services import Service, copy_sqlite, sqlite_template, valkey

    template = home / "template"
    template.mkdir(exist_ok=True)
    with valkey() as redis_url:
        settings = Settings(
            base_dir=home,
            database_url=copy_sqlite(sqlite_template(template), home),
            redis_url=redis_url,
            engine_dtype="float32",
        )
        step = int(checkpoint.name.removeprefix("step_"))
        insert(settings, checkpoint, run="witness", stage="base", step=step)
        running = Service(settings).start()
        try:
            yield running.base_url, f"witness:base:{step}"
        finally:
            running.stop()


# ---------------------------------------------------------------- the table


def table(rows: Sequence[Row], left_out: Mapping[str, int]) -> str:
    """Markdown, all shares in percent."""

    def percent(share: float | None) -> str:
        return "" if share is None else f"{100 * share:.2f}"

    lines = [
        "| task | kind | asked | left out | ours | lm-eval | points apart | ours, mean | lm-eval, mean |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        cells = [
            r.task, r.kind.replace("_", " "), str(r.asked), str(left_out[r.task]), percent(r.ours),
            percent(r.theirs), f"{r.points:.2f}", percent(r.core), percent(r.norm),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def place_model(given: Path | None, home: Path) -> Path:
    """A copy below `home/witness` of the checkpoint to score; trained first where `home` has none."""
    if given is None and not any((home / "base_checkpoints").glob("*/step_*")):
        print("no base checkpoint here: training a small one first", flush=True)
        run_once(home, home / "witness" / "tokenizer", "scripts.tok_train", TOKENIZER)
        run_once(home, home / "witness" / "base", "scripts.base_train", BASE)
    found = checkpoint_path(str(given or ""), home, ("base",)).resolve()
    target = step_dir(home / "witness", "base", "witness", int(read_meta(found)["step"]))
    shutil.rmtree(target.parent, ignore_errors=True)
    shutil.rmtree(home / "witness" / "hf", ignore_errors=True)  # of another checkpoint, perhaps
    target.parent.mkdir(parents=True)
    shutil.copytree(found, target)
    return target


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.clients.witness", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--home", type=Path, required=True, help="keeps the model; results below witness/")
    parser.add_argument("--checkpoint", type=Path, help="default: the newest base model of --home")
    parser.add_argument("--tasks", default=TASKS, help="comma-separated labels of CORE")
    parser.add_argument("--limit", type=int, default=-1, help="examples per task, -1: all that fit")
    parser.add_argument("--packages", type=Path, default=Path(".pytest_cache/d"), help="lm-eval goes here")
    given = parser.parse_args(argv)
    home = given.home.resolve()
    work = home / "witness"
    work.mkdir(parents=True, exist_ok=True)
    try:
        build(work / "core" / "eval_bundle")
        tasks = chosen(read_bundle(work / "core" / "eval_bundle"), given.tasks)
        name, requirement = LM_EVAL
        lm_eval = install(given.packages.resolve() / name, requirement, deps=True)
    except (ConfigError, DataError, NotInstallable) as error:
        parser.error(str(error))
    checkpoint = place_model(given.checkpoint, home)
    left_out = prepare(work, tasks, checkpoint, given.limit)
    with serve(work, checkpoint) as (url, model):
        rows = compare(work, checkpoint, lm_eval, url, model)
    print(f"{checkpoint.relative_to(home)}, lm-eval {LM_EVAL_VERSION}, percent:\n\n{table(rows, left_out)}")
    agree = sum(row.points <= POINTS for row in rows)
    print(f"\n{agree} of {len(rows)} within {POINTS} points")
    return 0 if agree == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
