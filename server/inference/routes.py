"""The OpenAI surface (/v1/models, /v1/chat/completions, /v1/completions), /tokenize, /detokenize, /models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from server import problems
from server.deps import Read, Services, ServicesDep
from server.inference import body, catalog, stream
from server.inference.answers import Answer
from server.inference.engine_process import EngineProcess
from server.inference.errors import OpenAIError, model_not_found
from server.inference.schemas import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Generation,
    TokenizeRequest,
)
from server.inference.stream import disconnected, end

T = TypeVar("T")


class OpenAIRoute(APIRoute):
    """An OpenAIError is OpenAI's error object under /v1, and a problem document elsewhere."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except OpenAIError as error:
                return _refusal(request, error)

        return handle


router = APIRouter(tags=["openai"], route_class=OpenAIRoute)


def _refusal(request: Request, error: OpenAIError) -> Response:
    if request.url.path.startswith("/v1/"):
        return JSONResponse(error.body, error.status, headers=error.headers)
    answer = problems.problem(request, error.status, error.code or "error", error.message)
    answer.headers.update(error.headers)
    return answer


#: the body is parsed by hand, so that errors take OpenAI's shape; server/document.py describes it
BY_HAND: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
}


# ---------------------------------------------------------------- models


@router.get("/v1/models")
async def list_models(session: Read, services: ServicesDep) -> dict[str, Any]:
    """Aliases (`latest`, pipelines), then every checkpoint of a language model, newest first."""
    loaded = services.engines.loaded()
    found = await catalog.models(session)
    return {"object": "list", "data": [_view(model, loaded.get(model.checkpoint_id)) for model in found]}


@router.get("/v1/models/{name:path}")
async def get_model(name: str, session: Read, services: ServicesDep) -> dict[str, Any]:
    """One model by any of its names: `run:stage:step`, `run:stage:last`, `run`, `latest`, …"""
    found = await catalog.find(session, name)
    if found is None:
        raise model_not_found(name)
    return _view(found, services.engines.loaded().get(found.checkpoint_id))


@router.post("/models/{name:path}/load", tags=["models"])
async def load_model(name: str, services: ServicesDep) -> dict[str, Any]:
    """Load a model now instead of on its first request; answers when it is ready."""
    model = await services.engines.model(name)
    return _view(model, await services.engines.engine(model))


@router.post("/models/{name:path}/unload", tags=["models"])
async def unload_model(name: str, services: ServicesDep) -> dict[str, Any]:
    """End a model's engine; requests that run in it get an error. Nothing happens when it is not loaded."""
    model = await services.engines.model(name)
    await services.engines.unload(model)
    return _view(model, None)


def _view(model: catalog.Model, engine: EngineProcess | None) -> dict[str, Any]:
    about = engine.about if engine is not None else {}
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "nanochat",
        "root": model.canonical,
        "max_model_len": about.get("context") or model.context,
        "loaded": engine is not None,
        "device": about.get("device"),
        "precision": about.get("precision"),
    }


# ---------------------------------------------------------------- generation


@router.post("/v1/chat/completions", openapi_extra=BY_HAND, response_model=None)
async def chat_completions(request: Request, services: ServicesDep) -> Response:
    """Answer a conversation, whole or as server-sent events (`stream`).

    400 also for what no schema says: a conversation that the user does not begin and end, `top_logprobs`
    without `logprobs`, fields that ask for what this engine has not (tools, response_format, …).
    """
    return await _answer(request, services, await body.read(request, ChatRequest))


@router.post("/v1/completions", openapi_extra=BY_HAND, response_model=None)
async def completions(request: Request, services: ServicesDep) -> Response:
    """Continue text or token ids; several prompts are answered at once.

    400 also for what no schema says: more than 256 answers at once, `max_tokens` of 0 without `echo`, fields
    that ask for what this engine has not.
    """
    return await _answer(request, services, await body.read(request, CompletionRequest))


async def _answer(request: Request, services: Services, asked: Generation) -> Response:
    answer = Answer(services.engines, asked)
    if not asked.stream:
        try:
            return JSONResponse(await _unless_gone(request, answer.whole()))
        finally:
            answer.close()
    begun = asyncio.create_task(answer.begin())
    try:  # what is wrong with the request decides the status, unless the model takes long to load
        await _unless_gone(request, _settled(begun, stream.PING_S))
    except BaseException:
        await end(begun)
        answer.close()
        raise
    return stream.EventStream(answer, begun)


async def _settled(begun: asyncio.Task[None], timeout_s: float) -> None:
    """Wait for it, but not longer than `timeout_s`. Raises what it raised."""
    await asyncio.wait((begun,), timeout=timeout_s)
    if begun.done():
        begun.result()


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; when the client leaves first, the work is cancelled and its slot is free."""
    task = asyncio.create_task(work)
    gone = asyncio.create_task(disconnected(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise OpenAIError(499, "The client has gone.", code="client_closed")
        return task.result()
    finally:
        await end(task)
        await end(gone)


# ---------------------------------------------------------------- tokens


@router.post("/tokenize", openapi_extra=BY_HAND)
async def tokenize(request: Request, services: ServicesDep) -> dict[str, Any]:
    """Ids of a text, or of messages as chat renders them; special tokens written in them stay text.

    400 also for a conversation that the user does not begin and end.
    """
    asked = await body.read(request, TokenizeRequest)
    frame = asked.frame()
    engine = await services.engines.engine(await services.engines.model(asked.model))
    ids = (await engine.ask(frame))["ids"]
    return {"ids": ids, "count": len(ids), "max_model_len": engine.context}


@router.post("/detokenize", openapi_extra=BY_HAND)
async def detokenize(request: Request, services: ServicesDep) -> dict[str, Any]:
    """Text of token ids."""
    asked = await body.read(request, DetokenizeRequest)
    engine = await services.engines.engine(await services.engines.model(asked.model))
    return {"text": (await engine.ask({"op": "detokenize", "ids": asked.ids}))["text"]}
