"""`python -m server.openapi` prints the OpenAPI document: what the dashboard's types are generated from."""

from __future__ import annotations

import json

from server.app import create_app
from server.settings import Settings


def main() -> int:
    print(json.dumps(create_app(Settings()).openapi(), indent=2, sort_keys=True, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
