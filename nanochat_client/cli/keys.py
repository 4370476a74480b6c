"""Verbs about keys: over HTTP with an admin's key, or with --local straight in the server's database."""

from __future__ import annotations

from typing import Annotated

import typer

from nanochat_client.cli.output import Json, dump, fail, table
from nanochat_client.cli.service import become

keys = typer.Typer(help="Who may call the service: create, list, revoke.", no_args_is_help=True)
Local = Annotated[
    bool, typer.Option("--local", help="On the server's machine, in its database; no server needed.")
]


@keys.command()
def create(
    name: Annotated[str, typer.Option(help="Whose key it is.")] = "admin",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, submit, operate, infer, admin or worker; may be repeated."),
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.001, help="It ends after so many days.")] = None,
    local: Local = False,
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    from nanochat_client.types.keys import USER, Scope

    wanted = scope or ([Scope.ADMIN] if name == "admin" else [str(each) for each in USER])
    if unknown := [each for each in wanted if each not in list(Scope)]:
        fail(f"there is no scope {unknown[0]!r}; there are {', '.join(Scope)}")
    seconds = None if days is None else max(60, round(days * 86_400))
    if local:
        given = [part for each in wanted for part in ("--scope", str(each))]
        given += ["--expires-in-s", str(seconds)] if seconds else []
        become("server.keys", "create", "--name", name, *given)
    from nanochat_client import Client

    with Client() as client:
        made = client.create_key(name, scopes=[str(each) for each in wanted], expires_in_s=seconds)
    if as_json:
        dump(made)
    else:
        print(made.key)


@keys.command("list")
def list_(local: Local = False, as_json: Json = False) -> None:
    """Every key with its scopes and its last use; never the secret."""
    if local:
        become("server.keys", "list", *(["--json"] if as_json else []))
    from nanochat_client import Client

    with Client() as client:
        page = client.keys()
    if as_json:
        dump(page)
        return
    rows = [
        (key.id, key.name, ",".join(key.scopes), key.expires_at or "", key.used_at or "never")
        for key in page.items
    ]
    table(("ID", "NAME", "SCOPES", "ENDS", "USED"), rows, empty="There is no key.")


@keys.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], local: Local = False) -> None:
    """End a key and the sessions of browsers that signed in with it."""
    if local:
        become("server.keys", "revoke", key_id)
    from nanochat_client import Client

    with Client() as client:
        client.revoke_key(key_id)


def register(app: typer.Typer) -> None:
    app.add_typer(keys, name="keys")
