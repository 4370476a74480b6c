"""`nanochat chat`: talk to a model, several turns, the answer as it is written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanochat_client.cli.output import Json, clean, dump, fail

if TYPE_CHECKING:
    from nanochat_client import Client


def chat(
    model: Annotated[str, typer.Argument(help="A name from `nanochat models`.")] = "latest",
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="Ask this and leave.")] = None,
    temperature: Annotated[float | None, typer.Option("-t", "--temperature", min=0, max=2)] = None,
    top_k: Annotated[int | None, typer.Option("-k", "--top-k", min=1)] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    as_json: Json = False,
) -> None:
    """Chat with a model; the newest one without a name."""
    from nanochat_client import Client

    given = {"temperature": temperature, "top_k": top_k, "max_tokens": max_tokens, "seed": seed}
    options = {name: value for name, value in given.items() if value is not None}
    with Client(timeout_s=300.0) as client:
        if prompt is None and not as_json:
            _converse(client, model, options)
            return
        if prompt is None:
            fail("--json goes with -p")
        messages = [{"role": "user", "content": prompt}]
        if as_json:
            answer = client.chat(messages, model=model, **options)
            dump({"model": model, "prompt": prompt, "answer": answer})
        else:
            _answer(client, model, messages, options)


def _converse(client: Client, model: str, options: dict[str, Any]) -> None:
    from nanochat_client.errors import BadRequest

    interactive = sys.stdin.isatty()
    messages: list[dict[str, str]] = []
    if interactive:
        print(f"{clean(model)} at {client.url}; an empty line starts anew, Ctrl-D leaves", file=sys.stderr)
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except (EOFError, KeyboardInterrupt):
            break
        if not line:
            messages = []
            continue
        messages.append({"role": "user", "content": line})
        try:
            messages.append({"role": "assistant", "content": _answer(client, model, messages, options)})
        except KeyboardInterrupt:
            print(flush=True)
            messages.pop()
        except BadRequest as error:
            if not interactive:
                raise
            # most often: the conversation has outgrown the model's context
            print(f"{clean(error.detail)} Starting anew.", file=sys.stderr)
            messages = []


def _answer(client: Client, model: str, messages: list[dict[str, str]], options: dict[str, Any]) -> str:
    pieces = []
    for piece in client.chat_stream(messages, model=model, **options):
        pieces.append(piece)
        sys.stdout.write(clean(piece))
        sys.stdout.flush()
    print(flush=True)
    return "".join(pieces)


def register(app: typer.Typer) -> None:
    app.command()(chat)
