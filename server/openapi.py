"""`python -m server.openapi` prints the OpenAPI document that the dashboard's types are generated from.

It is the one of /openapi.json without the text forms of answers that are JSON as well: the dashboard asks
for JSON, and its generator would make every answer "this or a string". Nor does it say which fields of a body
exclude each other, which types cannot, nor names of stages, which the dashboard asks for.
"""

from __future__ import annotations

import json
from typing import Any

from server.app import create_app
from server.settings import Settings


def without_text_forms(document: dict[str, Any]) -> dict[str, Any]:
    """`document`, changed in place."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                if "application/json" in content:
                    response["content"] = {"application/json": content["application/json"]}
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.pop("anyOf", None)
            schema["properties"].get("stage", {}).pop("enum", None)
    for parameter in document["paths"]["/runs"]["get"]["parameters"]:
        parameter["schema"].pop("enum", None)
    return document


def main() -> int:
    document = without_text_forms(create_app(Settings()).openapi())
    print(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
