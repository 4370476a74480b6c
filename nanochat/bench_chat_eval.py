"""`python -m nanochat.bench_chat_eval`: chat_eval in batches against one example per forward pass.

As many questions with letters as problems with text, as in ChatCORE; made-up ones of the lengths of MMLU and
GSM8K. One example per forward pass is the model itself, by torch: for letters with the logits of the last
position only, for text with a cache of keys and values. All sides in turn, medians of the rounds; their
answers are compared. `one lane` is our engine with one problem at a time. The batched side's total has the
making of its engine in it. `--cpu` counts CPU seconds: on a machine that others use too the wall clock tells
little.
Not covered: reading data, judging programs.
"""

from __future__ import annotations

import argparse
import pydoc_data.topics
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.evals.answers import Answerer
from nanochat.tasks.task import Example, Task

if TYPE_CHECKING:
    from nanochat.gpt import GPT
    from nanochat.tokenizer import Tokenizer

VOCAB, CONTEXT, TOKENS = 4096, 1024, 128


class MadeUp(Task):
    """`count` questions of 40 to 120 words, each of its own; with letters, or to be answered with text."""

    name = "made-up"

    def __init__(self, count: int, letters: str = "") -> None:
        super().__init__("test", Path())
        self._count, self._letters = count, letters
        self._words = " ".join(pydoc_data.topics.topics.values()).split()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Example:
        rng = random.Random(number)
        text = " ".join(rng.choices(self._words, k=rng.randint(40, 120)))
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "A"}]
        return Example(messages, "A", self._letters)

    def evaluate(self, example: Example, text: str) -> bool:
        return text == example.expected


def one_letter_at_a_time(model: GPT, tokenizer: Tokenizer, task: Task, numbers: Sequence[int]) -> list[str]:
    """What `Answerer.letters` finds when no two letters are equally likely."""
    import torch

    from nanochat.chat import render_prompt

    found = []
    with torch.inference_mode():
        for number in numbers:
            example = task[number]
            ids = torch.tensor([render_prompt(tokenizer, example.prompt)], device=model.lm_head.weight.device)
            logits_V = model.logits(model.hidden(ids)[:, -1:])[0, 0].float()
            columns = [tokenizer.encode(letter)[0] for letter in example.letters]
            found.append(example.letters[int(logits_V[columns].argmax())])
    return found


def answerer_of(model: GPT, tokenizer: Tokenizer, lanes: int, *, native: bool) -> Answerer:
    import torch

    from nanochat.engine.make import PROMPT_ROWS, Options, cache_blocks, make_runner
    from nanochat.engine.torch_runner import TorchRunner

    device = model.lm_head.weight.device
    options = Options(lanes, threads=torch.get_num_threads() if device.type == "cpu" else 0)
    if native:
        return Answerer(make_runner(model, options), tokenizer, lanes)
    rows = lanes + PROMPT_ROWS.get(device.type, 512)
    return Answerer(
        TorchRunner(model, blocks=cache_blocks(model.cfg, options, device), max_rows=rows), tokenizer, lanes
    )


def make_model(depth: int, vocab: int) -> GPT:
    """Random weights, in the precision that chat_eval takes here."""
    import torch

    from nanochat.common import resolve_device, resolve_dtype
    from nanochat.gpt import GPT, GPTConfig

    device = resolve_device("auto", 0)
    torch.manual_seed(0)
    model = GPT(GPTConfig.from_depth(depth, vocab, CONTEXT), resolve_dtype("auto", device))
    model.init_weights()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.02)
    return model.to(device).eval()


def main(argv: list[str] | None = None) -> int:
    from nanochat.stages.chat_eval import ChatEvalConfig

    parser = argparse.ArgumentParser(
        prog="python -m nanochat.bench_chat_eval", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=64, help="of each kind")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=ChatEvalConfig().batch_size)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds instead of the wall clock")
    given = parser.parse_args(argv)
    import torch

    from nanochat.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(iter(pydoc_data.topics.topics.values()), VOCAB)
    model = make_model(given.depth, tokenizer.vocab_size)
    asked, told, numbers = MadeUp(given.examples, "ABCD"), MadeUp(given.examples), range(given.examples)
    clock = time.process_time if given.cpu else time.perf_counter
    times: dict[str, list[float]] = {}
    said: dict[str, list[Any]] = {}

    def timed(name: str, do: Callable[..., Any], *given: Any) -> Any:
        started = clock()
        found = do(*given)
        times.setdefault(name, []).append(clock() - started)
        said[name] = found
        return found

    def make() -> Answerer:
        return answerer_of(model, tokenizer, given.batch_size, native=True)

    def text_by(answerer: Answerer) -> list[list[list[int]]]:
        return answerer.texts(told, numbers, max_new_tokens=TOKENS, temperature=0.0, top_k=0)

    alone = answerer_of(model, tokenizer, 1, native=False)
    lane = answerer_of(model, tokenizer, 1, native=True)
    for _ in range(given.rounds):
        timed("letters, model", one_letter_at_a_time, model, tokenizer, asked, numbers)
        timed("text, model", text_by, alone)
        timed("text, one lane", text_by, lane)
        many = timed("making", make)
        timed("letters, batched", many.letters, asked, numbers)
        timed("text, batched", text_by, many)
        many.runner.close()
    seconds = {name: statistics.median(found) for name, found in times.items()}
    print(f"{'examples/s':10}{'model':>10}{'batched':>10}")
    for kind in ("letters", "text"):
        plain, batched = seconds[f"{kind}, model"], seconds[f"{kind}, batched"]
        same = sum(a == b for a, b in zip(said[f"{kind}, model"], said[f"{kind}, batched"], strict=True))
        print(f"{kind:10}{given.examples / plain:10.1f}{given.examples / batched:10.1f}"
              f"{plain / batched:8.2f} ×   {same} of {given.examples} answers the same")  # fmt: skip
    plain = seconds["letters, model"] + seconds["text, model"]
    batched = seconds["making"] + seconds["letters, batched"] + seconds["text, batched"]
    print(f"{'both':10}{2 * given.examples / plain:10.1f}{2 * given.examples / batched:10.1f}"
          f"{plain / batched:8.2f} ×")  # fmt: skip
    print(f"text, one lane: {given.examples / seconds['text, one lane']:.1f} examples/s")
    print(
        f"d{given.depth}, {model.lm_head.weight.device.type}, {model.compute_dtype}, batch size "
        f"{given.batch_size}, {torch.get_num_threads()} torch thread(s), "
        f"{'CPU' if given.cpu else 'wall'} seconds"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
