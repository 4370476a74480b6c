"""base_eval and lm-evaluation-harness agree on a tiny model: choices, schemas, greedy continuations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from nanochat.evals.bundle import read_bundle
from nanochat.gpt import GPT
from nanochat.paths import step_dir
from tests.clients.conftest import Install, Served
from tests.clients.packages import LM_EVAL
from tests.clients.witness import Row, compare, prepare, table
from tests.nanochat.evals.bundles import write_bundle
from tests.server.inference.conftest import TOKENIZER

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]
EXAMPLES = 24


@torch.inference_mode()
def likeliest_word(net: GPT, context: str) -> str | None:
    """The token that `net` puts behind `context`, when it is one that follows a space; else None."""
    ids = [TOKENIZER.bos, *TOKENIZER.encode(context)]
    token = int(net(torch.tensor([ids]))[0, -1].argmax())
    text = TOKENIZER.decode([token])
    stays = TOKENIZER.encode(context + text) == [*ids[1:], token]
    return text[1:] if stays and text.startswith(" ") and text.strip() == text[1:] != "" else None


def some_as_the_model_says(net: GPT, file: Path) -> int:
    """Give half of the texts the continuation that `net` would, where a word behind them finds one."""
    examples = [json.loads(line) for line in file.read_text().splitlines()]
    words = [example["continuation"] for example in examples]
    changed = 0
    for example in examples[::2]:
        for word in words:
            context = f"{example['context'].strip()} {word}"
            if said := likeliest_word(net, context):
                example |= {"context": context, "continuation": said}
                changed += 1
                break
    file.write_text("".join(json.dumps(example) + "\n" for example in examples))
    return changed


@pytest.fixture(scope="module")
def rows(
    served: Served, install: Install, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Mapping[str, Row], int]:
    """What both say, by task; and how many continuations are the model's own."""
    lm_eval = install(*LM_EVAL, deps=True)
    home = tmp_path_factory.mktemp("witness")
    bundle = write_bundle(home / "source" / "eval_bundle", EXAMPLES, words=4)
    table_of = bundle / "core.yaml"  # so that what is said depends on the last word
    table_of.write_text(table_of.read_text().replace('"\\nAnswer: "', '" "'))
    own = some_as_the_model_says(served.net, bundle / "eval_data" / "say.jsonl")
    checkpoint = step_dir(served.service.settings.base_dir, "sft", "r0000000001", 7)
    left_out = prepare(home, read_bundle(bundle), checkpoint)
    found = compare(home, checkpoint, lm_eval, served.service.base_url, served.model)
    print(table(found, left_out))
    return {row.task: row for row in found}, own


def test_choices_by_summed_loglikelihood_are_the_same(rows: tuple[Mapping[str, Row], int]) -> None:
    row = rows[0]["continue"]
    assert row.ours == row.theirs and 0 < row.ours < 1 and row.asked > EXAMPLES // 2


def test_the_likelier_context_is_the_same(rows: tuple[Mapping[str, Row], int]) -> None:
    row = rows[0]["which"]
    assert row.ours == row.theirs and 0 < row.ours < 1 and row.asked > EXAMPLES // 2


def test_greedy_continuations_are_the_same(rows: tuple[Mapping[str, Row], int]) -> None:
    found, own = rows
    row = found["say"]
    assert row.ours == row.theirs and row.asked == EXAMPLES
    assert round(row.ours * EXAMPLES) == own > 1
