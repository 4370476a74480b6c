"""The command line `nanochat`. Modules are one group of verbs each; heavy imports happen inside the verbs.

Exit status: 0 ok, 1 the run failed or the service did, 2 wrong usage.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from nanochat_client.cli import (
    chat,
    control,
    doctor,
    files,
    keys,
    look,
    pipelines,
    plan,
    results,
    runs,
    service,
)

app = typer.Typer(
    name="nanochat",
    help="Train your own ChatGPT on this machine: run stages, watch them, chat with what comes out.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for group in (service, runs, plan, pipelines, look, results, control, chat, files, keys, doctor):
    group.register(app)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit status."""
    from nanochat_client.errors import NanochatError

    try:
        app(args=list(argv) if argv is not None else None, prog_name="nanochat")
    except NanochatError as error:
        from nanochat_client.cli.output import explain

        print(explain(error), file=sys.stderr)
        raise SystemExit(2 if error.status in (400, 404, 422) else 1) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has gone, e.g. `nanochat logs ID | head`
        raise SystemExit(1) from None
