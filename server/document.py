"""The OpenAPI document as the service really answers: what FastAPI cannot know by itself is added here.

Every error is a problem document (under /v1 OpenAI's error object), bodies that are parsed by hand are
described by their models, and rules that code checks are said where a schema can (document_rules.py).
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from nanochat_client.types import ProblemDocument
from server import document_rules
from server.inference.schemas import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest

REF = "#/components/schemas/{model}"
#: parsed by hand, see server/inference/body.py
BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/tokenize": TokenizeRequest,
    "/detokenize": DetokenizeRequest,
}
OPENAI_ERROR: dict[str, Any] = {
    "title": "OpenAIError",
    "description": "What OpenAI's clients read an error from.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def install(app: FastAPI) -> None:
    """Answer /openapi.json with the completed document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            complete(plain())
        return plain()

    app.openapi = openapi  # type: ignore[method-assign]


def complete(document: dict[str, Any]) -> None:
    """Change `document` in place."""
    schemas = document["components"]["schemas"]
    described: list[type[BaseModel]] = [ProblemDocument, *BODIES.values()]
    for model in described:
        _add(schemas, model)
    schemas["OpenAIError"] = OPENAI_ERROR
    for path, operations in document["paths"].items():
        for operation in operations.values():
            _errors(path, operation["responses"])
            if path in BODIES:
                content = operation["requestBody"]["content"]["application/json"]
                content["schema"] = {"$ref": REF.format(model=BODIES[path].__name__)}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document_rules.apply(document)


def _add(schemas: dict[str, Any], model: type[BaseModel]) -> None:
    schema = model.model_json_schema(ref_template=REF)
    for name, part in schema.pop("$defs", {}).items():
        schemas.setdefault(name, part)
    schemas[model.__name__] = schema


def _errors(path: str, responses: dict[str, Any]) -> None:
    openai = path.startswith("/v1/")
    kind, name = (
        ("application/json", "OpenAIError") if openai else ("application/problem+json", "ProblemDocument")
    )
    content = {kind: {"schema": {"$ref": REF.format(model=name)}}}
    if responses.pop("422", None) is not None:
        responses["400" if openai else "422"] = {"description": "What is wrong with it", "content": content}
    responses["default"] = {"description": "Any other error", "content": content}
