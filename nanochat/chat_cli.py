"""Talk to a checkpoint in the terminal, without the service.

Ctrl-C stops the answer and leaves what was said in the conversation; Ctrl-D leaves the program.
Not covered: a history longer than the context (the oldest turns are forgotten), line editing beyond what
the terminal gives.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # --help loads no torch
    from nanochat.engine import Engine

Turn = dict[str, str]
#: furthest stage first
STAGES = ("rl", "sft", "mid", "base")
HINT = "Ctrl-C stops an answer, Ctrl-D leaves"
INTERRUPTED = 128 + signal.SIGINT


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(prog="chat_cli", description="Talk to a checkpoint in the terminal.")
    flags.add_argument(
        "--checkpoint", default="", help="path or latest.pt link; default: the newest chat model"
    )
    flags.add_argument(
        "--max_tokens", "--max-tokens", type=int, default=256, help="tokens per answer at most"
    )
    flags.add_argument("-p", "--prompt", default="", help="ask this, print the answer, leave")
    flags.add_argument("-t", "--temperature", type=float, default=0.6, help="0 takes the likeliest token")
    flags.add_argument("-k", "--top_k", "--top-k", type=int, default=50, help="sample among so many; 0: all")
    flags.add_argument("--seed", type=int, default=None, help="the same seed, the same answers")
    return flags


def main(argv: Sequence[str]) -> int:
    """0 when done, 1 when there is no model to talk to, 2 for wrong flags, 130 for Ctrl-C before the end."""
    flags = parser()
    args = flags.parse_args(argv)
    if args.max_tokens < 1 or not 0 <= args.temperature <= 2 or args.top_k < 0:
        flags.error("--max_tokens must be 1 or more, --temperature between 0 and 2, --top_k 0 or more")

    with CtrlC() as ctrl_c:
        try:
            return converse(args, ctrl_c)
        except KeyboardInterrupt:  # before there was anything to stop
            return INTERRUPTED


def converse(args: argparse.Namespace, ctrl_c: CtrlC) -> int:
    """Load the model and answer `args.prompt`, or what is typed until the terminal is closed."""
    import torch

    from nanochat.artefacts import checkpoint_path
    from nanochat.checkpoint import BrokenCheckpoint, load_model
    from nanochat.engine import Options, make_engine
    from nanochat.errors import DataError
    from nanochat.paths import base_dir

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = checkpoint_path(args.checkpoint, base_dir(), STAGES)
        model, tokenizer, meta = load_model(place, device, torch.bfloat16)
    except (DataError, BrokenCheckpoint, OSError) as error:
        print(f"chat_cli: {error}", file=sys.stderr)
        return 1
    engine = make_engine(model, tokenizer, Options(lanes=1))
    chat = Chat(engine, ctrl_c, args.max_tokens, args.temperature, args.top_k, args.seed)
    if args.prompt:
        ctrl_c.raises = False
        chat.ask(args.prompt)
        return INTERRUPTED if chat.stopped else 0
    print(f"{meta.get('stage', 'model')} {place.name} of {place.parent.name}; {HINT}")
    talk(chat, ctrl_c)
    return 0


def talk(chat: Chat, ctrl_c: CtrlC) -> None:
    """Questions from the terminal until it is closed."""
    if sys.stdin.isatty():
        with suppress(ImportError):  # not in every Python: then without the arrow keys
            import readline  # noqa: F401
    while True:
        ctrl_c.asked = False
        try:
            ctrl_c.raises = True
            text = input("> ").strip()
            ctrl_c.raises = False
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print(f"\n({HINT})")
            continue
        if text:
            chat.ask(text)


class CtrlC:
    """What Ctrl-C does: it ends a wait at once, and asks an answer to stop.

    One handler for the whole program leaves no moment between two of them; `raises` says what it does. It
    is never in force while an engine works, which must not be torn out of its step, and one exception
    clears it, so that an impatient second Ctrl-C does not interrupt what answers the first.
    """

    def __init__(self) -> None:
        self.raises = True
        self.asked = False
        """Whether somebody pressed it since this was last cleared."""

    def __enter__(self) -> CtrlC:
        self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self.raises:
            self.raises = False
            raise KeyboardInterrupt


class Chat:
    """A conversation with one engine; answers are printed as they come."""

    def __init__(
        self,
        engine: Engine,
        ctrl_c: CtrlC,
        max_tokens: int,
        temperature: float,
        top_k: int,
        seed: int | None,
    ) -> None:
        self.engine, self.max_tokens = engine, max_tokens
        self.ctrl_c = ctrl_c
        self.temperature, self.top_k = temperature, top_k
        self.seed = int.from_bytes(os.urandom(6)) if seed is None else seed
        self.turns: list[Turn] = []
        self.stopped = False
        """Whether Ctrl-C ended the last answer."""

    def ask(self, text: str) -> str:
        """The answer to `text` after all that was said before; printed, as far as Ctrl-C lets it come."""
        from nanochat.engine import Request
        from nanochat.engine.sampling import Sampling

        self.turns.append({"role": "user", "content": text})
        prompt = self._prompt()
        if not prompt:
            self.turns.clear()
            print("(that is longer than the model's context)")
            return ""
        room = self.engine.context - len(prompt)
        sampling = Sampling(self.temperature, self.top_k, seed=self.seed + len(self.turns))
        self.engine.add(Request("chat", prompt, min(self.max_tokens, room), sampling))
        said = ""
        for piece in self._pieces():
            print(piece, end="", flush=True)
            said += piece
        self.stopped = self.ctrl_c.asked
        print(" (stopped)" if self.stopped else "")
        if said:
            self.turns.append({"role": "assistant", "content": said})
        else:
            del self.turns[-1:]  # a question nobody answered
        return said

    def _pieces(self) -> Iterator[str]:
        """The answer's text as it comes, until its end or until Ctrl-C."""
        from nanochat.engine.detokenize import TextStream

        stream = TextStream(self.engine.tokenizer)
        while self.engine.busy and not self.ctrl_c.asked:
            for output in self.engine.step():
                if output.token is None:
                    yield stream.end()
                elif not output.tool:
                    yield stream.push(output.token)
        if self.engine.busy:
            self.engine.abort("chat")
            yield stream.end()

    def _prompt(self) -> list[int]:
        """The conversation as ids; the oldest turns go until an answer fits. Empty: not even one fits."""
        from nanochat.chat import render_prompt

        while self.turns:
            prompt = render_prompt(self.engine.tokenizer, self.turns)
            if len(prompt) < self.engine.context:
                return prompt
            del self.turns[:2]
        return []
