"""Rules that code checks and JSON Schema can say, written into the OpenAPI document.

They are here, and not at the models, where a rule needs what the client's package does not know (stages,
names of files) or is about several fields at once. Not covered: rules that need the database, the disk or a
stage's own settings; descriptions of operations name those.
"""

from __future__ import annotations

from typing import Any

from nanochat import files
from nanochat.configurator import MAX_PRESET_BYTES
from nanochat.stages import STAGES
from server.pipelines import presets
from server.policy import ANYBODY, POLICY

Schema = dict[str, Any]
KEY = "key"
#: the document has no convertors in its paths
SCOPES = {row.replace(":path}", "}"): scopes for row, scopes in POLICY.items()}
SECURITY: Schema = {
    KEY: {
        "type": "http",
        "scheme": "bearer",
        "description": "`nck_…`, as `nanochat keys create` makes them. A key opens an operation with any of "
        "its scopes; `admin` stands for all but `worker`. No key is asked for where the service is open "
        "(NANOCHAT_AUTH), except below /internal.",
    }
}
TEXT_OR_MESSAGES = [
    {"required": ["text"], "properties": {"text": {"type": "string"}, "messages": {"type": "null"}}},
    {"required": ["messages"], "properties": {"text": {"type": "null"}, "messages": {"type": "array"}}},
]


def apply(document: Schema) -> None:
    """Change `document` in place."""
    schemas = document["components"]["schemas"]
    for model in ("RunCreate", "PlanCreate", "PipelineStep"):
        schemas[model]["properties"]["stage"]["enum"] = list(STAGES)
    schemas["PipelineCreate"]["anyOf"] = _preset_or_steps()
    schemas["FileCreate"]["anyOf"] = [_named(kind, endings) for kind, endings in files.SUFFIXES.items()]
    schemas["TokenizeRequest"]["anyOf"] = TEXT_OR_MESSAGES
    for field in schemas["RunPatch"]["properties"].values():  # a field is changed or absent
        without_null(field)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):  # a query and a header have no null
                without_null(parameter["schema"])
                if (path, parameter["name"]) == ("/runs", "stage"):
                    parameter["schema"]["enum"] = list(STAGES)
            scopes = SCOPES.get(f"{method.upper()} {path}", ANYBODY)
            if scopes:
                operation["security"] = [{KEY: [scope]} for scope in sorted(scopes)]
    document["components"]["securitySchemes"] = SECURITY


def without_null(schema: Schema) -> None:
    """`schema` for what is there or absent, but never null. Changes it in place."""
    if {"type": "null"} not in schema.get("anyOf", []):
        return
    others = [part for part in schema.pop("anyOf") if part != {"type": "null"}]
    if len(others) > 1:
        schema["anyOf"] = others
    else:
        schema.update(others[0])


def _preset_or_steps() -> list[Schema]:
    return [
        {
            "required": ["preset"],
            "properties": {"preset": {"enum": list(presets.files())}, "steps": {"maxItems": 0}},
        },
        {"required": ["steps"], "properties": {"preset": {"type": "null"}, "steps": {"minItems": 1}}},
    ]


def _named(kind: str, endings: tuple[str, ...]) -> Schema:
    """What a file of this kind may be called, and how large a preset may be."""
    ends = "|".join(ending.removeprefix(".") for ending in endings)
    properties: Schema = {
        "kind": {"const": kind},
        "name": {"pattern": rf"^[a-z0-9][a-z0-9._-]*\.({ends})$", "maxLength": files.LONGEST_NAME},
    }
    if kind == "preset":
        properties["size"] = {"maximum": MAX_PRESET_BYTES}
    return {"properties": properties}
