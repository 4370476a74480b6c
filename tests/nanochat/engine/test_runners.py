"""What every runner must do, tried on both; and what only the native one promises: the same bits, always."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nanochat.engine import Options, native
from nanochat.engine.make import cache_blocks, make_runner
from nanochat.engine.native import NativeRunner, Unavailable
from nanochat.engine.runner import BLOCK, Batch, Ints, Runner
from nanochat.engine.torch_runner import TorchRunner
from nanochat.gpt import GPT, GPTConfig
from tests.nanochat.engine.tiny import MODEL, TOKENIZER, tiny_model

BLOCKS, ROWS = 12, 120
IDS = torch.randint(0, TOKENIZER.vocab_size, (60,), generator=torch.Generator().manual_seed(1)).tolist()
Make = Callable[[GPT], Runner]


def native_runner(model: GPT, precision: str = "float32", **more: object) -> NativeRunner:
    return NativeRunner(model, precision=precision, blocks=BLOCKS, max_rows=ROWS, **more)  # type: ignore[arg-type]


def torch_runner(model: GPT) -> TorchRunner:
    return TorchRunner(model, blocks=BLOCKS, max_rows=ROWS)


def static_runner(model: GPT) -> TorchRunner:
    """Padded to few shapes, as on a GPU."""
    return TorchRunner(model, blocks=BLOCKS, max_rows=ROWS, static=True)


RUNNERS = [native_runner, torch_runner, static_runner]


def ints(numbers: object) -> Ints:
    return np.array(numbers, dtype=np.int32)


def batch(*pieces: tuple[list[int], int, list[int]]) -> Batch:
    """Pieces of (tokens, position of the first, blocks of the sequence); all logits are wanted."""
    tables = ints([(table + [0] * 4)[:4] for _, _, table in pieces])
    tokens = [token for ids, _, _ in pieces for token in ids]
    positions = [start + i for ids, start, _ in pieces for i in range(len(ids))]
    sequence = [number for number, (ids, _, _) in enumerate(pieces) for _ in ids]
    return Batch(ints(tokens), ints(positions), ints(sequence), tables, ints(range(len(tokens))))


def in_pieces(runner: Runner) -> Tensor:
    """Logits of IDS[:50], computed in pieces beside another sequence."""
    mine, other = [3, 1, 4, 2], [5, 6, 7, 8]
    parts = [
        runner.forward(batch((IDS[:7], 0, mine), (IDS[:20], 0, other)))[:7],
        runner.forward(batch((IDS[20:21], 20, other), (IDS[7:40], 7, mine)))[1:],
        *(runner.forward(batch((IDS[i : i + 1], i, mine), (IDS[i + 1 : i + 2], 21, other)))[:1]
          for i in range(40, 45)),
        *(runner.forward(batch((IDS[i : i + 1], i, mine))) for i in range(45, 50)),
    ]  # fmt: skip
    return torch.cat(parts)


@pytest.mark.parametrize("make", RUNNERS)
@pytest.mark.parametrize(("kv_heads", "modern"), [(2, False), (1, False), (2, True), (1, True)])
def test_logits_are_the_models_in_one_piece_or_many(make: Make, kv_heads: int, modern: bool) -> None:
    model = tiny_model(kv_heads, modern)
    with torch.no_grad():
        expected = model(torch.tensor([IDS[:50]]))[0]
    whole = make(model).forward(batch((IDS[:50], 0, [0, 1, 2, 3])))
    assert torch.allclose(whole, expected, atol=2e-5)
    assert torch.allclose(in_pieces(make(model)), expected, atol=2e-5)


@pytest.mark.parametrize("make", RUNNERS)
def test_only_what_is_wanted_is_given(make: Make) -> None:
    everything = make(MODEL).forward(batch((IDS[:9], 0, [0]), (IDS[9:12], 0, [1])))
    asked = batch((IDS[:9], 0, [0]), (IDS[9:12], 0, [1]))
    some = make(MODEL).forward(
        Batch(asked.tokens, asked.positions, asked.sequence, asked.tables, ints([8, 11]))
    )
    assert torch.allclose(some, everything[[8, 11]], atol=1e-5)


@pytest.mark.parametrize("make", RUNNERS)
def test_sequences_may_share_blocks(make: Make) -> None:
    runner = make(MODEL)
    whole = runner.forward(batch((IDS[:40], 0, [0, 1, 2])))
    runner.forward(batch((IDS[32:40], 32, [0, 1, 5])))  # another sequence with the same beginning
    again = runner.forward(batch((IDS[32:40], 32, [0, 1, 6])))
    assert torch.allclose(again, whole[32:], atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("modern", [False, True])
def test_the_native_runner_gives_the_same_bits_however_it_is_asked(precision: str, modern: bool) -> None:
    model = tiny_model(1, modern)
    whole = native_runner(model, precision).forward(batch((IDS[:50], 0, [0, 1, 2, 3])))
    assert torch.equal(in_pieces(native_runner(model, precision, threads=1)), whole)
    assert torch.equal(in_pieces(native_runner(model, precision, threads=3)), whole)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=1, max_size=9), st.sampled_from(["float32", "bfloat16", "int8"]))
def test_bits_do_not_depend_on_how_many_stand_beside(lengths: list[int], precision: str) -> None:
    pieces = [(IDS[at : at + length], 0, [at]) for at, length in enumerate(lengths)]
    together = native_runner(MODEL, precision).forward(batch(*pieces))
    alone = [native_runner(MODEL, precision).forward(batch(piece)) for piece in pieces]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(("precision", "far"), [("bfloat16", 0.15), ("int8", 0.4)])
def test_fewer_bits_stay_near(precision: str, far: float) -> None:
    exact = native_runner(MODEL).forward(batch((IDS[:50], 0, [0, 1, 2, 3])))
    rough = native_runner(MODEL, precision).forward(batch((IDS[:50], 0, [0, 1, 2, 3])))
    assert 0 < (rough - exact).abs().max() < far
    assert torch.nn.functional.kl_div(
        rough.log_softmax(1), exact.log_softmax(1), log_target=True, reduction="batchmean"
    ) < 0.02  # fmt: skip


LEVELS = {"x86-64-v4": "avx512f", "x86-64-v3": "avx2", "x86-64-v2": "sse4_2"}


@pytest.mark.parametrize("march", LEVELS)
def test_older_processors_compute_the_same(march: str) -> None:
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        flags = []
    if LEVELS[march] not in flags:
        pytest.skip(f"this processor is not {march}")
    library = native.build(march=march)  # 12 s of a core, so all precisions in one test
    exact = native_runner(tiny_model(1, True)).forward(batch((IDS[:50], 0, [0, 1, 2, 3])))
    for precision, far in {"float32": 2e-5, "bfloat16": 0.15, "int8": 0.5}.items():
        found, again = (
            in_pieces(native_runner(tiny_model(1, True), precision, library=library)) for _ in range(2)
        )
        assert torch.equal(found, again), precision
        assert (found - exact).abs().max() < far, precision


def test_a_vocabulary_that_fills_no_panel_is_whole() -> None:
    for vocabulary in (1, 15, 17, 63, 65, 130):
        weight = torch.randn(vocabulary, 32)
        packed, _ = native.pack(weight, "float32")
        assert packed.permute(0, 2, 3, 1).reshape(-1, 32)[:vocabulary].equal(weight)


def test_without_a_compiler_torch_serves_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NANOCHAT_KERNEL_DIR", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    assert isinstance(make_runner(MODEL), TorchRunner)
    assert "no-such-compiler" in capsys.readouterr().err
    monkeypatch.setenv("CC", "false")
    assert isinstance(make_runner(MODEL), TorchRunner)
    monkeypatch.delenv("CC")
    assert isinstance(make_runner(MODEL), NativeRunner)
    assert [file.suffix for file in tmp_path.iterdir()] == [".so"]


def test_widths_that_do_not_divide_are_for_torch() -> None:
    odd = GPT(GPTConfig(sequence_len=32, vocab_size=300, n_layer=1, n_head=4, n_kv_head=4, n_embd=64))
    odd.init_weights()
    with pytest.raises(Unavailable, match="16 wide"):
        NativeRunner(odd, precision="float32", blocks=2, max_rows=8)
    assert isinstance(make_runner(odd), TorchRunner)


def test_the_cache_is_what_the_lanes_need_within_the_budget() -> None:
    cfg = GPTConfig.from_depth(20, 65536, 2048)
    per_sequence, cpu = 2048 // BLOCK, torch.device("cpu")
    assert cache_blocks(cfg, Options(lanes=2, cache_gib=100.0), cpu) == 2 * per_sequence
    assert (
        cache_blocks(cfg, Options(lanes=64, cache_gib=1.0, precision="bfloat16"), cpu)
        * 2
        * 20
        * 1280
        * BLOCK
        * 2
        <= 2**30
    )
    assert cache_blocks(cfg, Options(lanes=64, cache_gib=0.001), cpu) == per_sequence


@pytest.mark.gpu
def test_a_recorded_graph_computes_what_the_model_does() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    model = tiny_model(1).cuda()
    model.reset_rotary(model.cfg.sequence_len)
    with torch.no_grad():
        expected = model(torch.tensor([IDS[:50]], device="cuda"))[0].cpu()
    assert torch.allclose(in_pieces(torch_runner(model)).cpu(), expected, atol=1e-3)
