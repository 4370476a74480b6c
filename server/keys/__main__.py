"""`python -m server.keys create|list|revoke|ensure`: keys in the configured database, no server needed.

`nanochat keys … --local` runs this. What it prints on standard output is the key or the table, nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from nanochat_client.types.keys import USER, Key, KeyCreate, Scope
from server import migrate
from server.keys import local
from server.settings import Settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nanochat keys … --local")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("create", "ensure"):
        made = verbs.add_parser(verb)
        made.add_argument("--name", default="admin" if verb == "create" else "bootstrap")
        made.add_argument("--scope", action="append", choices=[str(scope) for scope in Scope])
        made.add_argument("--expires-in-s", type=int)
        if verb == "ensure":
            made.add_argument("--file", type=Path, required=True)
    verbs.add_parser("list").add_argument("--json", action="store_true")
    verbs.add_parser("revoke").add_argument("id")
    return parser


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.verb == "list":
        rows = [Key.model_validate(row, from_attributes=True) for row in local.listed(settings)]
        if arguments.json:
            print(json.dumps({"items": [row.model_dump(mode="json") for row in rows]}, indent=2))
        for row in [] if arguments.json else rows:
            print(row.id, row.name, ",".join(row.scopes), row.used_at or "never used", sep="\t")
        return 0
    if arguments.verb == "revoke":
        if local.revoke(settings, arguments.id):
            return 0
        print(f"keys: there is no key {arguments.id!r}", file=sys.stderr)
        return 1
    # the first key is made on the server's own machine by who may do everything there anyway
    scopes = [
        Scope(name) for name in arguments.scope or ([Scope.ADMIN] if arguments.name == "admin" else USER)
    ]
    body = KeyCreate(name=arguments.name, scopes=scopes, expires_in_s=arguments.expires_in_s)
    if arguments.verb == "create":
        print(local.create(settings, body))
    else:
        local.ensure(settings, arguments.file, body)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return run(arguments, Settings())
    except ValidationError as error:
        first = error.errors()[0]
        print(f"keys: {'/'.join(map(str, first['loc']))}: {first['msg']}", file=sys.stderr)
        return 2
    except (ValueError, OSError, migrate.NewerDatabase) as error:
        print(f"keys: {error}", file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        print(f"keys: cannot use the database: {cause}; check NANOCHAT_DATABASE_URL", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
