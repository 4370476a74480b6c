"""Every call of the API as data: what is sent and how the answer is read. Shared by both clients."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import JsonValue, TypeAdapter, ValidationError

from nanochat_client import types
from nanochat_client.errors import ServerError
from nanochat_client.keys import Key, KeyCreated

T = TypeVar("T")
Params = dict[str, Any]
Message = Mapping[str, str]
JsonObject = dict[str, JsonValue]


@dataclass(frozen=True)
class Operation(Generic[T]):
    """One request and the reading of its answer."""

    method: str
    path: str
    parse: Callable[[bytes], T]
    params: Params = field(default_factory=dict)
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    repeatable: bool = False
    """May be sent again after a connection error."""


def _parser(shape: Any) -> Callable[[bytes], Any]:
    def parse(body: bytes) -> Any:
        try:
            return TypeAdapter(shape).validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = "/".join(str(part) for part in first["loc"])
            raise ServerError(
                f"the answer is not what this client expects ({first['msg']} at /{where}): is the address "
                "really a nanochat service of this version?",
                code="unexpected_answer",
            ) from None

    return parse


def _get(path: str, shape: Any, **params: Any) -> Operation[Any]:
    given = {name: value for name, value in params.items() if value not in (None, [], "")}
    return Operation("GET", path, _parser(shape), given, repeatable=True)


def _post(path: str, shape: Any, body: Any = None, *, creates: bool = False) -> Operation[Any]:
    # with the key a second delivery of the same request makes nothing new, so it may be repeated
    headers = {"idempotency-key": uuid.uuid4().hex} if creates else {}
    return Operation("POST", path, _parser(shape), body=body, headers=headers, repeatable=creates)


def _id(text: str) -> str:
    return quote(text, safe="") or "%20"


# ---------------------------------------------------------------- runs


def create_run(body: types.RunCreate) -> Operation[types.Run]:
    return _post("/runs", types.Run, body.model_dump(mode="json", exclude_unset=True), creates=True)


def list_runs(
    *,
    stage: str | None,
    state: Sequence[str],
    tag: str | None,
    pipeline: str | None,
    cursor: str | None,
    limit: int,
) -> Operation[types.Page[types.Run]]:
    return _get(
        "/runs",
        types.Page[types.Run],
        stage=stage,
        state=[str(name) for name in state],
        tag=tag,
        pipeline=pipeline,
        cursor=cursor,
        limit=limit,
    )


def get_run(run_id: str) -> Operation[types.Run]:
    return _get(f"/runs/{_id(run_id)}", types.Run)


def patch_run(run_id: str, body: types.RunPatch) -> Operation[types.Run]:
    fields = body.model_dump(mode="json", exclude_unset=True)
    return Operation("PATCH", f"/runs/{_id(run_id)}", _parser(types.Run), body=fields)


def delete_run(run_id: str) -> Operation[None]:
    return Operation("DELETE", f"/runs/{_id(run_id)}", lambda _: None)


def act(run_id: str, verb: str) -> Operation[types.Run]:
    """`verb`: cancel, pause or resume; see `retry` for the fourth."""
    return _post(f"/runs/{_id(run_id)}/{verb}", types.Run)


def retry(run_id: str) -> Operation[types.Run]:
    return _post(f"/runs/{_id(run_id)}/retry", types.Run, creates=True)


def attempts(run_id: str) -> Operation[types.Page[types.Attempt]]:
    return _get(f"/runs/{_id(run_id)}/attempts", types.Page[types.Attempt])


def events(run_id: str, *, after: int, kind: Sequence[str], limit: int) -> Operation[types.Page[types.Event]]:
    return _get(
        f"/runs/{_id(run_id)}/events", types.Page[types.Event], after=after, kind=list(kind), limit=limit
    )


def logs(run_id: str, *, after: int, limit: int, q: str | None) -> Operation[types.LogPage]:
    return _get(f"/runs/{_id(run_id)}/logs", types.LogPage, after=after, limit=limit, q=q)


def metrics(run_id: str, *, keys: Sequence[str], max_points: int, x: str) -> Operation[types.Metrics]:
    return _get(
        f"/runs/{_id(run_id)}/metrics", types.Metrics, keys=",".join(keys), max_points=max_points, x=x
    )


def samples(run_id: str, *, after: int, limit: int) -> Operation[types.Page[types.Sample]]:
    return _get(f"/runs/{_id(run_id)}/samples", types.Page[types.Sample], after=after, limit=limit)


# ---------------------------------------------------------------- pipelines, checkpoints, evaluations


def create_pipeline(body: types.PipelineCreate) -> Operation[types.Pipeline]:
    fields = body.model_dump(mode="json", exclude_unset=True)
    return _post("/pipelines", types.Pipeline, fields, creates=True)


def list_pipelines(*, cursor: str | None, limit: int) -> Operation[types.Page[types.Pipeline]]:
    return _get("/pipelines", types.Page[types.Pipeline], cursor=cursor, limit=limit)


def get_pipeline(pipeline_id: str) -> Operation[types.Pipeline]:
    return _get(f"/pipelines/{_id(pipeline_id)}", types.Pipeline)


def cancel_pipeline(pipeline_id: str) -> Operation[types.Pipeline]:
    return _post(f"/pipelines/{_id(pipeline_id)}/cancel", types.Pipeline)


def list_checkpoints(
    *, run: str | None, stage: str | None, cursor: str | None, limit: int
) -> Operation[types.Page[types.Checkpoint]]:
    return _get(
        "/checkpoints", types.Page[types.Checkpoint], run=run, stage=stage, cursor=cursor, limit=limit
    )


def lineage(checkpoint_id: str) -> Operation[types.Lineage]:
    return _get(f"/checkpoints/{_id(checkpoint_id)}/lineage", types.Lineage)


def evaluations(
    *,
    run: str | None,
    pipeline: str | None,
    checkpoint: str | None,
    stage: str | None,
    name: str | None,
    cursor: str | None,
    limit: int,
) -> Operation[types.Page[types.Evaluation]]:
    return _get(
        "/evaluations", types.Page[types.Evaluation],
        run=run, pipeline=pipeline, checkpoint=checkpoint, stage=stage, name=name, cursor=cursor, limit=limit,
    )  # fmt: skip


def report(run_id: str) -> Operation[types.Report]:
    return _get(f"/runs/{_id(run_id)}/report", types.Report)


def pipeline_report(pipeline_id: str) -> Operation[types.Report]:
    return _get(f"/pipelines/{_id(pipeline_id)}/report", types.Report)


# ---------------------------------------------------------------- the service


def stages() -> Operation[types.Page[types.StageView]]:
    return _get("/stages", types.Page[types.StageView])


def configs() -> Operation[types.Page[types.ConfigView]]:
    return _get("/configs", types.Page[types.ConfigView])


def plan(body: types.PlanCreate) -> Operation[types.Plan]:
    fields = body.model_dump(mode="json", exclude_unset=True)
    return Operation("POST", "/plans", _parser(types.Plan), body=fields, repeatable=True)


def workers() -> Operation[types.Page[types.Worker]]:
    return _get("/workers", types.Page[types.Worker])


def system() -> Operation[types.System]:
    return _get("/system", types.System)


# ---------------------------------------------------------------- models


def models() -> Operation[list[dict[str, Any]]]:
    def parse(body: bytes) -> list[dict[str, Any]]:
        answer: dict[str, Any] = _parser(dict[str, Any])(body)
        return list(answer.get("data", []))

    return Operation("GET", "/v1/models", parse, repeatable=True)


def load_model(name: str, *, loaded: bool) -> Operation[dict[str, Any]]:
    verb = "load" if loaded else "unload"
    return Operation("POST", f"/models/{quote(name)}/{verb}", _parser(dict[str, Any]), repeatable=True)


def promote(checkpoint_id: str, alias: str) -> Operation[types.Checkpoint]:
    path = f"/checkpoints/{quote(checkpoint_id)}/promote"
    return Operation("POST", path, _parser(types.Checkpoint), body={"alias": alias}, repeatable=True)


# ---------------------------------------------------------------- keys


def list_keys() -> Operation[types.Page[Key]]:
    return _get("/keys", types.Page[Key])


def create_key(name: str, scopes: Sequence[str], expires_in_s: int | None) -> Operation[KeyCreated]:
    body: JsonObject = {"name": name, "expires_in_s": expires_in_s}
    return _post("/keys", KeyCreated, {**body, "scopes": list(scopes)} if scopes else body)


def revoke_key(key_id: str) -> Operation[None]:
    return Operation("DELETE", f"/keys/{_id(key_id)}", lambda _: None)


def chat(model: str, messages: Sequence[Message], options: dict[str, Any]) -> Operation[str]:
    """The whole answer at once; its text."""

    def parse(body: bytes) -> str:
        answer: dict[str, Any] = _parser(dict[str, Any])(body)
        return str(answer["choices"][0]["message"]["content"] or "")

    body = {"model": model, "messages": [dict(message) for message in messages], **options}
    return Operation("POST", "/v1/chat/completions", parse, body=body)


def chat_stream(model: str, messages: Sequence[Message], options: dict[str, Any]) -> Operation[None]:
    """The answer as server-sent events; read its lines with `chat_delta`."""
    body = {"model": model, "messages": [dict(message) for message in messages], **options, "stream": True}
    return Operation("POST", "/v1/chat/completions", lambda _: None, body=body)


def chat_delta(line: str) -> str | None:
    """The text that one line of a streamed answer adds; None at its end."""
    if not line.startswith("data:"):
        return ""
    data = line.removeprefix("data:").strip()
    if data == "[DONE]":
        return None
    chunk = json.loads(data)
    if error := chunk.get("error"):
        raise ServerError(str(error.get("message")), code=str(error.get("code") or "error"))
    return "".join(str(choice.get("delta", {}).get("content") or "") for choice in chunk.get("choices", []))
