"""The OpenAI surface: /v1/models, /v1/chat/completions, /v1/completions; and /tokenize, /detokenize."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from server.deps import Read, Services, ServicesDep
from server.inference import catalog
from server.inference.answers import Answer, Json
from server.inference.errors import OpenAIError, model_not_found
from server.inference.schemas import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Generation,
    TokenizeRequest,
)

MAX_BODY_BYTES = 16 * 1024 * 1024
Body = TypeVar("Body", bound=BaseModel)


class OpenAIRoute(APIRoute):
    """Every error of these routes is the OpenAI error object."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except OpenAIError as error:
                return JSONResponse(error.body, error.status, headers=error.headers)

        return handle


router = APIRouter(tags=["openai"], route_class=OpenAIRoute)


def _documented(model: type[BaseModel]) -> dict[str, Any]:
    """The body's schema for OpenAPI; it is parsed by hand so that errors take OpenAI's shape."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    }


@router.get("/v1/models")
async def list_models(session: Read) -> dict[str, Any]:
    """Aliases (`latest`, pipelines), then every checkpoint of a language model, newest first."""
    return {"object": "list", "data": [_view(model) for model in await catalog.models(session)]}


@router.get("/v1/models/{name:path}")
async def get_model(name: str, session: Read) -> dict[str, Any]:
    found = await catalog.find(session, name)
    if found is None:
        raise model_not_found(name)
    return _view(found)


@router.post("/v1/chat/completions", openapi_extra=_documented(ChatRequest), response_model=None)
async def chat_completions(request: Request, services: ServicesDep) -> Response:
    """Answer a conversation, whole or as server-sent events (`stream`)."""
    body = await _body(request, ChatRequest)
    conversation = body.conversation()
    frames = [{**body.frame(), "messages": conversation}]
    return await _answer(request, services, body, frames, chat=True)


@router.post("/v1/completions", openapi_extra=_documented(CompletionRequest), response_model=None)
async def completions(request: Request, services: ServicesDep) -> Response:
    """Continue text or token ids; several prompts are answered one after the other."""
    body = await _body(request, CompletionRequest)
    frames = [{**body.frame(), **prompt} for prompt in body.prompts()]
    return await _answer(request, services, body, frames, chat=False)


@router.post("/tokenize", openapi_extra=_documented(TokenizeRequest))
async def tokenize(request: Request, services: ServicesDep) -> dict[str, Any]:
    """Ids of a text; special tokens written in it stay text."""
    body = await _body(request, TokenizeRequest)
    engine = await services.engines.engine(await services.engines.model(body.model))
    answer = await engine.ask({"op": "tokenize", "text": body.text})
    return {"ids": answer["ids"], "count": len(answer["ids"])}


@router.post("/detokenize", openapi_extra=_documented(DetokenizeRequest))
async def detokenize(request: Request, services: ServicesDep) -> dict[str, Any]:
    """Text of token ids."""
    body = await _body(request, DetokenizeRequest)
    engine = await services.engines.engine(await services.engines.model(body.model))
    return {"text": (await engine.ask({"op": "detokenize", "ids": body.ids}))["text"]}


async def _answer(
    request: Request, services: Services, body: Generation, frames: list[Json], *, chat: bool
) -> Response:
    model = await services.engines.model(body.model)
    engine = await services.engines.engine(model)
    answer = Answer(engine, model.name, frames, chat)
    if not body.stream:
        return JSONResponse(await _unless_gone(request, answer.whole()))
    events = answer.events()
    try:  # the first frame decides the status: what is wrong with the request is no stream
        first = await _unless_gone(request, anext(events, None))
    except BaseException:
        await events.aclose()
        raise
    return StreamingResponse(
        answer.stream(first, events, body.include_usage),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _unless_gone(request: Request, work: Any) -> Any:
    """The result of `work`; when the client leaves first, the work is cancelled and its slot is free."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise OpenAIError(499, "The client has gone.", code="client_closed")
        return task.result()
    finally:
        for left in (task, gone):
            if not left.done():
                left.cancel()
                with contextlib.suppress(asyncio.CancelledError, OpenAIError):
                    await left


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request, kind: type[Body]) -> Body:
    """The request's body. Raises OpenAIError 400 or 413 that names the parameter."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise OpenAIError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", code="too_large")
        parts.append(part)
    try:
        data = orjson.loads(b"".join(parts))
    except orjson.JSONDecodeError as error:
        raise OpenAIError(400, f"The body is no valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(data, dict):
        raise OpenAIError(400, "The body must be a JSON object.", code="invalid_value")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if not _is_type_name(part)]
        param = ".".join(place) or None
        code = "missing_required_parameter" if first["type"] == "missing" else "invalid_value"
        raise OpenAIError(400, f"{param}: {first['msg']}.", code=code, param=param) from None


def _is_type_name(part: int | str) -> bool:
    """Names pydantic adds for the members of a union, such as `list[TextPart]` or `constrained-str`."""
    return isinstance(part, str) and (part in ("str", "int") or "[" in part or "-" in part)


def _view(model: catalog.Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "nanochat",
        "max_model_len": model.context,
    }
