"""Plans of the stages after base, held against models, runners and tensors that exist."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nanochat.engine import make
from nanochat.engine.make import Options, make_runner
from nanochat.engine.native import PANEL, NativeRunner
from nanochat.engine.runner import BLOCK
from nanochat.engine.torch_runner import TorchRunner
from nanochat.gpt import GPT, GPTConfig
from nanochat.hardware import Gpu, find_gpu
from nanochat.planner import Shape, answering, fit_tuning, plan_tuning, shape_of, tuning
from nanochat.planner.answering import Answering, cache_blocks, cache_bytes, packed_bytes
from nanochat.planner.dry import dry_run
from nanochat.planner.evaluating import evaluation_memory
from nanochat.planner.tuning import PROMPT_TOKENS, setting_of
from nanochat.planner_check import fake
from nanochat.stages.base_eval import BaseEvalConfig
from nanochat.stages.base_loss import BaseLossConfig
from nanochat.stages.chat_eval import ChatEvalConfig
from nanochat.stages.mid import MidConfig
from nanochat.stages.rl import RlConfig
from nanochat.stages.sft import SftConfig
from nanochat.tokenizer import Tokenizer
from nanochat.train.rl import make_engine

GIB = 1 << 30
SMALL = Shape(4, 8192, 512)
CLASSIC = Shape(12, 32768, 2048)


def card(name: str) -> Gpu:
    found = find_gpu(name)
    assert found is not None
    return found


def meta_model(shape: Shape) -> GPT:
    """A model of that shape, without memory."""
    with torch.device("meta"):
        return GPT(config_of(shape))


def config_of(shape: Shape) -> GPTConfig:
    flags = {"value_embeddings": shape.value_embeddings, "residual_scalars": shape.residual_scalars}
    return GPTConfig.from_depth(shape.depth, shape.vocab_size, shape.context, **flags)


@pytest.mark.parametrize("flags", [{}, {"value_embeddings": True}, {"residual_scalars": True}], ids=str)
@pytest.mark.parametrize("depth", [1, 4, 7, 12])
def test_parameters_are_those_of_the_model_to_the_last_one(depth: int, flags: dict[str, bool]) -> None:
    shape = Shape(depth, 300, 64, **flags)
    model = meta_model(shape)
    assert shape.params == model.num_params()
    assert shape_of(model.cfg.to_dict()) == shape == shape_of(shape.to_config())
    plan = plan_tuning(SftConfig(), shape, ranks=1, gpu=None)
    assert plan.params == model.num_params() and plan.flops_per_token == model.flops_per_token()


def test_models_of_another_form_are_not_planned() -> None:
    for odd in (GPTConfig(64, 300, 2, 1, 1, 32), GPTConfig(64, 300, 2, 2, 1, 128)):
        with pytest.raises(ValueError, match="are planned"):
            shape_of(odd.to_dict())
    with pytest.raises(ValueError, match="does not say"):
        shape_of({"params": 3})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("learned", [1.0, 0.5, 0.1])
def test_fine_tuning_takes_no_more_than_planned_and_as_much_when_all_is_learned(
    dtype: str, learned: float
) -> None:
    cfg = SftConfig(device_batch_size=4, target_examples_per_step=4, dtype=dtype)  # type: ignore[arg-type]
    s = replace(setting_of(cfg, SMALL, 1, None), runtime=False, bf16_hardware=True)
    assert (s.seq_len, s.compiled, s.device) == (512, False, "cpu")
    planned, tracked = tuning.peak_memory(s).total, fake.tracked_peak(s, learned)
    assert planned >= 0.99 * tracked
    if learned == 1.0:
        assert planned == pytest.approx(tracked, rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("depth", "vocab_size", "context", "rows"),
    [(4, 8192, 512, 4), (6, 8192, 2048, 2), (4, 1024, 1024, 8), (8, 16384, 1024, 2)],
)
def test_a_pass_without_gradient_takes_what_fake_tensors_take(
    dtype: str, depth: int, vocab_size: int, context: int, rows: int
) -> None:
    shape = Shape(depth, vocab_size, context)
    cfg = BaseLossConfig(device_batch_size=rows, dtype=dtype)  # type: ignore[arg-type]
    planned = evaluation_memory(cfg, shape, 1, None, None)
    tensors = planned.weights + planned.activations + planned.loss
    assert tensors == pytest.approx(fake.tracked_forward(shape, rows, dtype), rel=0.05)


def test_what_is_copied_from_the_engine_is_still_the_same() -> None:
    assert (answering.BLOCK, answering.PROMPT_ROWS, answering.PANEL) == (BLOCK, make.PROMPT_ROWS, PANEL)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("lanes", "tokens"), [(1, 40), (5, 100), (12, 128)])
def test_the_cache_of_rl_is_as_large_as_the_engines(lanes: int, tokens: int, dtype: Any) -> None:
    shape = Shape(2, 300, 128)
    model = GPT(config_of(shape), getattr(torch, dtype))
    model.init_weights()
    tokenizer = Tokenizer.train(iter(["the cat sat on the mat"] * 20), 300)
    engine = make_engine(model, tokenizer, lanes, tokens)
    assert isinstance(engine.runner, NativeRunner), "this machine has no compiler"
    planned = Answering(shape, lanes, "cpu", dtype, tokens=tokens)
    kept = engine.runner._kept
    cache = next(tensor for tensor in kept if tensor.dim() == 5)
    assert engine.runner.blocks == cache_blocks(planned) and cache.nbytes == cache_bytes(planned)
    shared = {weight.data_ptr() for weight in (*model.parameters(), model.cos_TR, model.sin_TR)}
    packed = sum(tensor.nbytes for tensor in kept if tensor.data_ptr() not in shared) - cache.nbytes
    assert packed == packed_bytes(planned)
    engine.runner.close()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_cache_of_a_gpu_is_what_the_torch_runner_allocates(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, lanes, free = Shape(4, 300, 256), 7, 40 << 20
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, free))
    blocks = make.cache_blocks(config_of(shape), Options(lanes), torch.device("cuda"))
    runner = TorchRunner(GPT(config_of(shape), getattr(torch, dtype)), blocks=blocks, max_rows=lanes + 512)
    planned = Answering(shape, lanes, "cuda", dtype, free_bytes=free)
    assert blocks == cache_blocks(planned)
    made = sum(tensor.nbytes for tensor in (*runner._keys, *runner._values))
    assert made == cache_bytes(planned)


def test_evaluations_ask_for_weights_and_a_cache() -> None:
    for cfg in (ChatEvalConfig(batch_size=4, dtype="float32"), BaseEvalConfig(batch_size=4, dtype="float32")):
        memory = evaluation_memory(cfg, SMALL, 1, None, None)
        assert memory.weights == 4 * SMALL.params and memory.gradients == memory.optimizer == 0
        runner = make_runner(GPT(config_of(SMALL)), Options(4))
        assert memory.cache == cache_bytes(Answering(SMALL, runner.blocks // 32, "cpu", "float32"))
        runner.close()
    scoring = evaluation_memory(BaseEvalConfig(batch_size=4), SMALL, 1, None, None)
    assert scoring.buffers > evaluation_memory(ChatEvalConfig(batch_size=4), SMALL, 1, None, None).buffers
    tight = evaluation_memory(ChatEvalConfig(batch_size=256), CLASSIC, 1, card("RTX 3060"), 12 * GIB)
    assert tight.cache < 6 * GIB, "half of what is free"


def test_mid_counts_tokens_and_micro_batches_as_the_trainer_does() -> None:
    cfg = MidConfig(num_iterations=10, device_batch_size=4, target_examples_per_step=16)
    plan = plan_tuning(cfg, CLASSIC, ranks=2, gpu=card("RTX 5090"))
    assert (plan.total_batch_size, plan.accumulation, plan.steps) == (16 * 2048, 2, 10)
    assert plan.tokens == 160 * 2048 and plan.seconds and plan.energy_kwh and plan.fits
    epoch = plan_tuning(cfg.model_copy(update={"num_iterations": -1}), CLASSIC, ranks=2, gpu=None)
    assert epoch.steps is None and epoch.tokens is None and epoch.seconds is None
    assert epoch.tokens_per_second and any("epoch" in note for note in epoch.notes)
    short = cfg.model_copy(update={"max_seq_len": 512, "total_batch_size": 8192})
    assert plan_tuning(short, CLASSIC, ranks=2, gpu=None).total_batch_size == 8192


def test_rl_says_how_it_answers_and_its_peak_is_the_larger_of_both_moments() -> None:
    cfg = RlConfig(examples_per_step=16, num_samples=16, max_new_tokens=256, eval_every=0)
    plan = plan_tuning(cfg, CLASSIC, ranks=2, gpu=card("RTX 4090"))
    assert plan.rollouts is not None and plan.memory is not None
    assert (plan.rollouts.answers, plan.rollouts.lanes) == (128, 64)
    assert plan.rollouts.tokens == PROMPT_TOKENS + 256
    assert (plan.steps, plan.accumulation) == (7472 // 16, 16) and plan.seconds is None
    both = plan.rollouts.answering_bytes, plan.rollouts.learning_bytes
    assert plan.memory.total == max(both)
    many = plan_tuning(
        cfg.model_copy(update={"lanes": 4096, "examples_per_step": 512, "device_batch_size": 1}),
        CLASSIC, ranks=2, gpu=card("RTX 4090"),
    )  # fmt: skip
    assert many.memory is not None and many.rollouts is not None
    assert many.memory.cache == many.rollouts.cache_bytes > 0 and many.memory.activations == 0
    assert any("answers" in note for note in many.notes)
    few = plan_tuning(cfg.model_copy(update={"num_iterations": 3}), CLASSIC, ranks=1, gpu=None)
    assert few.steps == 3


@pytest.mark.parametrize(
    "cfg",
    [
        MidConfig(target_examples_per_step=64),
        SftConfig(target_examples_per_step=96),
        RlConfig(examples_per_step=32, num_samples=8, lanes=512),
    ],
    ids=["mid", "sft", "rl"],
)
@pytest.mark.parametrize("budget_gib", [6, 10, 24])
def test_a_fit_is_within_its_budget_and_the_next_size_is_not(cfg: tuning.Tuned, budget_gib: int) -> None:
    budget, gpu = budget_gib * GIB, card("RTX 4090")
    best = fit_tuning(cfg, CLASSIC, ranks=2, gpu=gpu, budget_bytes=budget)
    assert best.device_batch_size and best.total_bytes <= budget and not best.activation_checkpoint
    changed = {"device_batch_size": best.device_batch_size} | ({"lanes": best.lanes} if best.lanes else {})
    fitting = cfg.model_copy(update=changed)
    assert fitting.problems(2) == []
    plan = plan_tuning(fitting, CLASSIC, ranks=2, gpu=gpu, budget_bytes=budget)
    assert plan.fits and plan.memory is not None and plan.memory.total == best.total_bytes
    larger = cfg.model_copy(update=changed | {"device_batch_size": 2 * best.device_batch_size})
    if not larger.problems(2) and 2 * best.device_batch_size <= 128:
        assert not plan_tuning(larger, CLASSIC, ranks=2, gpu=gpu, budget_bytes=budget).fits


def test_nothing_fits_into_too_little() -> None:
    none = fit_tuning(RlConfig(), CLASSIC, ranks=1, gpu=card("RTX 3060"), budget_bytes=1 * GIB)
    assert none.device_batch_size is None and none.total_bytes > GIB and none.lanes == 1


def checkpoint(base: Path, stage: str, shape: Shape, tag: str = "a") -> Path:
    """The files of a checkpoint that a plan reads."""
    place = base / stage / tag / "step_000010"
    place.mkdir(parents=True)
    (place / "meta.json").write_text(json.dumps({"model_config": shape.to_config()}))
    (place / "manifest.json").write_text("{}")
    return place


def plan(stage: str, base: Path, **values: Any) -> dict[str, Any]:
    found = dry_run(stage, values, gpus=0, gpu=None, base=base, target_gb=4)
    return found.values | {"problems": found.problems}


def test_a_dry_run_finds_the_model_on_disk(tmp_path: Path) -> None:
    nothing = plan("sft", tmp_path)
    assert nothing["memory"] is None and nothing["fit"] is None and nothing["argv"][-1] == "scripts.chat_sft"
    assert "there is no mid_checkpoint yet (a run of mid or base makes one)" in nothing["notes"][0]
    assert plan("rl", tmp_path)["steps"] == 467
    checkpoint(tmp_path, "base_checkpoints", SMALL)
    mine = checkpoint(tmp_path, "base_checkpoints", CLASSIC, "mine")
    found = plan("sft", tmp_path, mid_checkpoint="base_checkpoints/a")
    assert found["parameters"] == SMALL.params and found["fits"] and found["fit"]["device_batch_size"] == 32
    assert plan("mid", tmp_path, base_checkpoint=str(mine))["parameters"] == CLASSIC.params
    assert plan("mid", tmp_path)["parameters"] == CLASSIC.params, "the newest"
    missing = plan("mid", tmp_path, base_checkpoint="nowhere")
    assert missing["memory"] is None and "'nowhere' cannot be read" in missing["notes"][0]
    assert plan("base_eval", tmp_path)["memory"]["gradients"] == 0
    wrong = plan("mid", tmp_path, total_batch_size=100_000)
    assert wrong["problems"][0].pointer == "/total_batch_size", "known once the context is"
    assert plan("rl", tmp_path, examples_per_step=0)["problems"][0].pointer == "/examples_per_step"
    for stage in ("tokenizer", "tok_eval"):
        text = plan(stage, tmp_path)
        assert text["memory"] is None and text["device"] == "CPU" and "not planned" in text["notes"][0]
