"""lm-evaluation-harness against the server: what it computes is what the model itself says.

Its installation takes a minute and 750 MB, so `make test` leaves this out and `make test-clients` runs it.
"""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat.engine import Options, Request, make_engine
from nanochat.engine.detokenize import TextStream
from nanochat.engine.sampling import Sampling
from nanochat.gpt import GPT
from nanochat.interop.hf import export
from nanochat.paths import step_dir
from tests.clients.conftest import CONTEXT, Install, Served
from tests.clients.packages import LM_EVAL, LM_EVAL_VERSION
from tests.server.inference.conftest import TOKENIZER

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]
QUESTIONS, NEW = 24, 10
UNTIL = "\n"
TASKS = {
    "local_choice": 'output_type: multiple_choice\ndoc_to_choice: "{{choices}}"\ndoc_to_target: "{{answer}}"',
    "local_target": 'output_type: loglikelihood\ndoc_to_target: "{{target}}"',
    "local_rolling": 'output_type: loglikelihood_rolling\ndoc_to_target: "{{context}} {{target}}"',
    "local_text": 'output_type: generate_until\ndoc_to_target: "{{target}}"\n'
    f'generation_kwargs: {{until: ["\\n"], max_gen_toks: {NEW}, do_sample: false}}',
}
METRICS = {
    "local_choice": "acc", "local_target": "perplexity", "local_rolling": "bits_per_byte",
    "local_text": "exact_match",
}  # fmt: skip
PROGRAM = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager

url, model, tokenizer, tasks, context = sys.argv[1:]
url += "/v1/completions"
same = {"model": model, "base_url": url, "tokenizer": tokenizer, "max_length": int(context)}
usual = ["local_choice", "local_target", "local_text"]
runs = {
    "text": ({"tokenized_requests": False}, 1, usual),
    "text, several at once": ({"tokenized_requests": False, "num_concurrent": 4}, 4, usual),
    "ids": ({"tokenized_requests": True, "add_bos_token": True}, 8, usual),
    "whole texts": ({"tokenized_requests": True}, 8, ["local_rolling"]),
}
found = {"version": lm_eval.__version__}
for name, (args, batch_size, names) in runs.items():
    results = lm_eval.simple_evaluate(
        model="local-completions", model_args={**same, **args}, batch_size=batch_size, bootstrap_iters=0,
        tasks=names,
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
    )
    found[name] = {
        task: [{"asked": sample["arguments"], "answers": sample["resps"]} for sample in samples]
        for task, samples in results["samples"].items()
    }
    found[name]["accuracy"] = results["results"].get("local_choice", {}).get("acc,none")
print(json.dumps(found))
"""


def write_tasks(place: Path) -> list[dict[str, Any]]:
    """Four tasks on one file of questions: documentation that goes on, or does not."""
    text = " ".join("\n".join(pydoc_data.topics.topics.values()).split())
    chance = random.Random(2)

    def piece(characters: int) -> str:
        start = text.index(" ", chance.randrange(len(text) - 1000)) + 1
        return text[start : text.rindex(" ", start, start + characters)]

    rows = [
        {"context": piece(90), "choices": [piece(30) for _ in range(4)], "answer": i % 4, "target": piece(40)}
        for i in range(QUESTIONS)
    ]
    (place / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, more in TASKS.items():
        source = (
            f"dataset_path: json\ndataset_kwargs: {{data_files: {{validation: '{place / 'rows.jsonl'}'}}}}"
        )
        context = '""' if name == "local_rolling" else '"{{context}}"'
        (place / f"{name}.yaml").write_text(
            f"task: {name}\n{source}\nvalidation_split: validation\ndoc_to_text: {context}\n{more}\n"
            f"metric_list: [{{metric: {METRICS[name]}}}]\n"
        )
    return rows


@pytest.fixture(scope="module")
def found(
    served: Served, install: Install, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The questions, and what the program above says of them."""
    place = install(*LM_EVAL, deps=True)
    home = tmp_path_factory.mktemp("lm-eval")
    checkpoint = step_dir(served.service.settings.base_dir, "sft", "r0000000001", 7)
    export(checkpoint, home / "hf")
    (home / "tasks").mkdir()
    rows = write_tasks(home / "tasks")
    environ = {
        **os.environ, "PYTHONPATH": str(place), "HF_HOME": str(home / "cache"), "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }  # fmt: skip
    arguments = [served.service.base_url, served.model, str(home / "hf"), str(home / "tasks"), str(CONTEXT)]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=150, cwd=home)
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert said["version"] == LM_EVAL_VERSION
    return rows, said


RUNS = ("text", "text, several at once", "ids")


@torch.inference_mode()
def loglikelihood(net: GPT, context: str, target: str) -> tuple[float, bool, bool]:
    """ln p of `target` after `context`, whether it is the likeliest, and whether an end would follow."""
    ids = [TOKENIZER.bos, *TOKENIZER.encode(context + target)]
    start = 1 + len(TOKENIZER.encode(context))
    logits = net(torch.tensor([ids]))[0].float()
    logprobs = logits.log_softmax(1)[range(start - 1, len(ids) - 1), ids[start:]]
    likeliest = logits[start - 1 : -1].argmax(1).tolist() == ids[start:]
    return float(logprobs.double().sum()), likeliest, int(logits[-1].argmax()) == TOKENIZER.bos


@pytest.mark.parametrize("run", RUNS)
def test_loglikelihoods_are_the_models_own(
    served: Served, found: tuple[list[dict[str, Any]], dict[str, Any]], run: str
) -> None:
    _, said = found
    compared = ends = 0
    for task in ("local_choice", "local_target"):
        for sample in said[run][task]:
            for (context, target), (answer,) in zip(sample["asked"], sample["answers"], strict=True):
                expected, likeliest, end = loglikelihood(served.net, context, target)
                assert float(answer[0]) == pytest.approx(expected, abs=1e-3)
                assert str(answer[1]) == str(likeliest)
                compared += 1
                ends += end
    assert compared == QUESTIONS * 5
    assert ends >= 3, "no target was followed by an end token: that case was not tested"


@pytest.mark.parametrize("run", RUNS)
def test_the_accuracy_follows_from_them(
    served: Served, found: tuple[list[dict[str, Any]], dict[str, Any]], run: str
) -> None:
    rows, said = found
    right = 0
    for row in rows:
        scores = [loglikelihood(served.net, row["context"], f" {choice}")[0] for choice in row["choices"]]
        right += scores.index(max(scores)) == row["answer"]
    assert said[run]["accuracy"] == pytest.approx(right / QUESTIONS)


def test_whole_texts_are_scored_from_their_first_token(
    served: Served, found: tuple[list[dict[str, Any]], dict[str, Any]]
) -> None:
    """By ids, and without `add_bos_token`: the harness puts a `<|bos|>` before whole texts by itself.

    Not by text: there it would write the token in letters, and letters they stay.
    """
    rows, said = found
    for row, sample in zip(rows, said["whole texts"]["local_rolling"], strict=True):
        expected, _, _ = loglikelihood(served.net, "", f"{row['context']} {row['target']}")
        ((answer,),) = sample["answers"]
        assert float(answer) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("run", RUNS)
def test_generated_text_is_the_engines_greedy_text(
    served: Served, found: tuple[list[dict[str, Any]], dict[str, Any]], run: str
) -> None:
    rows, said = found
    engine = make_engine(served.net, TOKENIZER, Options(lanes=8, precision="float32", threads=1))
    streams = [TextStream(TOKENIZER, [UNTIL]) for _ in rows]
    texts = [""] * len(rows)
    for i, row in enumerate(rows):
        prompt = [TOKENIZER.bos, *TOKENIZER.encode(row["context"])]
        engine.add(Request(str(i), prompt, NEW, Sampling(0.0)))
    while engine.busy:
        for output in engine.step():
            i = int(output.id)
            texts[i] += streams[i].end() if output.token is None else streams[i].push(output.token)
    assert [sample["answers"][0][0] for sample in said[run]["local_text"]] == texts
    assert len(set(texts)) > QUESTIONS / 2
