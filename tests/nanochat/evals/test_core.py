"""CORE: batches with shared beginnings give what one example at a time gives, on any number of ranks."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from nanochat.configurator import ConfigError
from nanochat.engine.make import Options, make_runner
from nanochat.engine.torch_runner import TorchRunner
from nanochat.errors import DataError
from nanochat.evals.bundle import CORE_TASKS, read_bundle
from nanochat.evals.core import (
    Answer,
    answers,
    chosen,
    core_of,
    evaluate,
    is_right,
    pick,
    prompts,
    sequences,
    summary,
)
from nanochat.evals.plain import plain_continuations
from nanochat.evals.scoring import Scorer, cut
from tests.nanochat.engine.tiny import TOKENIZER, tiny_model
from tests.nanochat.evals.bundles import write_bundle
from tests.nanochat.trainers import Home

CONTEXT = 160  # shorter than the longest prompts, so that some are cut
MODEL = tiny_model(context=CONTEXT)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("home") / "eval_bundle")


@pytest.mark.parametrize("kind", ["native", "torch"])
def test_batches_score_as_one_example_at_a_time(bundle: Path, kind: str) -> None:
    if kind == "torch":
        runner = TorchRunner(MODEL, blocks=60, max_rows=50)
    else:
        runner = make_runner(MODEL, Options(lanes=40, precision="float32", threads=1))
    scorer = Scorer(runner)
    lengths = []
    for task in read_bundle(bundle):
        examples = task.examples()
        groups = [sequences(TOKENIZER, task, examples, i, CONTEXT) for i in range(len(examples))]
        lengths += [len(ids) for group in groups for ids, _ in group]
        together = scorer.continuations(groups)
        for number, (group, scored) in enumerate(zip(groups, together, strict=True)):
            alone = plain_continuations(MODEL, group)
            assert [one.loss for one in scored] == pytest.approx([one.loss for one in alone], abs=1e-4)
            assert [one.greedy for one in scored] == [one.greedy for one in alone]
            decided = [is_right(task, examples[number], number, found) for found in (scored, alone)]
            assert decided[0] == decided[1]
    assert max(lengths) == CONTEXT > min(lengths)
    assert scorer.rows < sum(lengths)
    assert kind == "torch" or scorer.passes < len(lengths)
    runner.close()


def test_a_model_that_says_the_continuation_is_right_and_another_is_not(bundle: Path) -> None:
    task = read_bundle(bundle)[2]
    examples = task.examples()
    ((ids, start),) = sequences(TOKENIZER, task, examples, 0, CONTEXT)
    with torch.no_grad():
        said = MODEL.logits(MODEL.hidden(torch.tensor([ids[:start]])))[0, -1].argmax().item()
    scorer = Scorer(TorchRunner(MODEL, blocks=60, max_rows=50))
    other = [*ids[:start], (int(said) + 1) % TOKENIZER.vocab_size]
    yes, no = scorer.continuations([[([*ids[:start], int(said)], start)], [(other, start)]])
    assert is_right(task, examples[0], 0, yes) and not is_right(task, examples[0], 0, no)


def test_prompts_have_their_shots_without_the_example_itself(bundle: Path) -> None:
    mc, schema, lm = read_bundle(bundle)
    examples = mc.examples()
    texts = prompts(mc, examples, 3)
    own = examples[3]
    assert [text.rsplit("\n\n", 1)[1] for text in texts] == [f"{own['query']} {c}" for c in own["choices"]]
    shots = texts[0].split("\n\n")[:-1]
    solved = {f"{e['query']} {e['choices'][e['gold']]}" for i, e in enumerate(examples) if i != 3}
    assert len(shots) == 2 and set(shots) <= solved and texts == prompts(mc, examples, 3)
    assert all("\n\n" not in text for text in prompts(schema, schema.examples(), 0))
    without, whole = prompts(lm, lm.examples(), 0)
    assert without.endswith("\nAnswer:") and whole.startswith(without + " ")


def test_ties_are_drawn_evenly_and_the_same_every_time() -> None:
    drawn = [pick([1.0, 2.0, 1.0, 1.0 + 1e-9], number) for number in range(3000)]
    assert drawn == [pick([1.0, 2.0, 1.0, 1.0], number) for number in range(3000)]
    assert set(drawn) == {0, 2, 3} and all(900 < drawn.count(choice) < 1100 for choice in (0, 2, 3))


def test_acc_sum_takes_the_highest_sum_where_core_takes_the_lowest_mean(bundle: Path) -> None:
    task = read_bundle(bundle)[0]
    examples = task.examples()
    found = answers(Scorer(TorchRunner(MODEL, blocks=60, max_rows=50)), TOKENIZER, task, examples, range(12))
    apart = 0
    for number, answer in found.items():
        group = sequences(TOKENIZER, task, examples, number, CONTEXT)
        plain = plain_continuations(MODEL, group)
        means = [one.loss for one in plain]
        sums = [one.loss * (len(ids) - start) for one, (ids, start) in zip(plain, group, strict=True)]
        gold = examples[number]["gold"]
        assert answer == Answer(pick(means, number) == gold, pick(sums, number) == gold)
        apart += means.index(min(means)) != sums.index(min(sums))
    assert apart  # the two rules are not the same one


def test_core_is_said_for_its_22_tasks_only() -> None:
    rows = {label: {"centered": 0.5} for label in CORE_TASKS}
    assert core_of(rows) == {"core/metric": 0.5}
    rows.pop("copa")
    assert core_of(rows) == {"core/partial": 0.5, "core/tasks": 21}
    assert core_of({**rows, "mine": {"centered": 0.5}}) == {"core/partial": 0.5, "core/tasks": 22}


def test_centred_accuracy_is_0_at_chance_and_1_when_all_is_right(bundle: Path) -> None:
    task = read_bundle(bundle)[0]
    assert summary(task, 5, 20)["centered"] == 0 and summary(task, 20, 20)["centered"] == 1
    assert summary(task, 0, 20)["centered"] == pytest.approx(-1 / 3)


def test_cut_keeps_the_end_and_at_least_one_token_before_the_continuation() -> None:
    assert cut([1, 2, 3, 4, 5], 4, 3) == ([3, 4, 5], 2)
    assert cut([1, 2, 3, 4, 5], 1, 3) == ([3, 4, 5], 1)
    assert cut([1, 2], 1, 3) == ([1, 2], 1)


def test_a_missing_bundle_is_named_with_the_way_to_get_it(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"core\.yaml is missing.*unzip eval_bundle\.zip"):
        read_bundle(tmp_path / "eval_bundle")
    other = write_bundle(tmp_path / "eval_bundle", examples=2)
    (other / "eval_data" / "say.jsonl").unlink()
    with pytest.raises(DataError, match=r"say\.jsonl is missing"):
        read_bundle(other)[2].examples()
    (other / "eval_data" / "say.jsonl").write_text('{"context": "a"}\n')
    with pytest.raises(DataError, match="line 1"):
        read_bundle(other)[2].examples()


def test_an_unknown_task_names_the_nearest(bundle: Path) -> None:
    tasks = read_bundle(bundle)
    assert chosen(tasks, "") == tasks and chosen(tasks, "say, which") == tasks[1:]
    with pytest.raises(ConfigError, match="nearest is 'continue'"):
        chosen(tasks, "continu")


def test_two_ranks_score_what_one_scores_and_the_results_are_on_disk(tmp_path: Path) -> None:
    home = Home(tmp_path)
    write_bundle(home.base / "eval_bundle", examples=9)
    assert home.train_tokenizer().code == 0
    made = home.run(
        "scripts.base_train",
        home.base_config(num_iterations=2, max_seq_len=128, device_batch_size=1),
        run="parent",
    )
    assert made.code == 0, made.log
    found = []
    for ranks in (1, 2):
        config = {"device": "cpu", "dtype": "float32", "max_per_task": 7, "processes": ranks}
        attempt = home.run("scripts.base_eval", config, run=f"core{ranks}", ranks=ranks)
        assert attempt.code == 0, attempt.log
        (event,) = attempt.events("eval")
        assert event["counts"] == {"continue": 7, "which": 7, "say": 7}
        found.append((event["values"], event["details"]))
        metrics = attempt.events("metric")[-1]["values"]
        assert "CORE" not in event["values"] and "core/metric" not in metrics
        assert (metrics["core/partial"], metrics["core/tasks"]) == (
            event["details"]["core"]["core/partial"],
            3,
        )
    assert found[0] == found[1]
    values, details = found[0]
    assert details["core"]["core/partial"] == pytest.approx(sum(details["centered"].values()) / 3)
    assert set(details["acc_sum"]) == {"continue", "which"}
    assert all(low <= values[task] <= high for task, (low, high) in details["intervals"].items())
    place = home.base / "base_eval" / "base_model_000002"
    rows = list(csv.DictReader(place.with_suffix(".csv").open()))
    assert [row["Task"] for row in rows] == ["continue", "which", "say"]
    assert set(rows[0]) == {"Task", "Accuracy", "Centered"}
    whole = json.loads(place.with_suffix(".json").read_text())
    assert whole["core"] is None and whole["partial"] == details["core"]["core/partial"]


def test_the_models_mode_is_kept(bundle: Path) -> None:
    from types import SimpleNamespace

    model = tiny_model(context=CONTEXT).train()
    world = SimpleNamespace(rank=0, size=1, stop=False, gather=lambda value: [value], say=lambda text: None)
    rows = evaluate(world, model, TOKENIZER, read_bundle(bundle)[1:2], 3, 2)  # type: ignore[arg-type]
    assert rows["which"]["total"] == 3 and model.training
