"""The SDK, for asyncio: the same names as `Client`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

from nanochat_client import operations, types
from nanochat_client._http import Address, AsyncTransport
from nanochat_client.keys import Key, KeyCreated
from nanochat_client.operations import JsonObject, Message
from nanochat_client.stream import CHANNELS, AsyncStream


class AsyncClient:
    """A nanochat training service. Use it with `async with`, or call `await close()`.

    `url` and `api_key` come from NANOCHAT_URL and NANOCHAT_API_KEY when absent. Methods return the models
    of `nanochat_client.types` and raise the errors of `nanochat_client.errors`.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout_s: float = 60.0
    ) -> None:
        self._address = Address(url, api_key)
        self._transport = AsyncTransport(self._address, timeout_s)

    @property
    def url(self) -> str:
        return self._address.url

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    # ---------------------------------------------------------------- runs

    async def create_run(
        self,
        stage: str,
        *,
        config: str | None = None,
        overrides: JsonObject | None = None,
        name: str | None = None,
        parent: str | None = None,
        checkpoint: str = "last",
        gpus: int | None = None,
        priority: int = 0,
        max_restarts: int = 3,
        max_duration_s: float | None = None,
        tags: Sequence[str] = (),
    ) -> types.Run:
        """Start a run of `stage`. `config`: a preset that ships; `overrides` win over it."""
        body = types.RunCreate(
            stage=stage,
            config=config,
            overrides=overrides or {},
            name=name,
            parent=parent,
            checkpoint=checkpoint,
            gpus=gpus,
            priority=priority,
            max_restarts=max_restarts,
            max_duration_s=max_duration_s,
            tags=list(tags),
        )
        return await self._transport.send(operations.create_run(body))

    async def runs(
        self,
        *,
        stage: str | None = None,
        state: Sequence[str] = (),
        tag: str | None = None,
        pipeline: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> types.Page[types.Run]:
        """Runs that match all filters (of several states: any), newest first."""
        return await self._transport.send(
            operations.list_runs(
                stage=stage, state=state, tag=tag, pipeline=pipeline, cursor=cursor, limit=limit
            )
        )

    async def run(self, run_id: str) -> types.Run:
        return await self._transport.send(operations.get_run(run_id))

    async def patch_run(self, run_id: str, changes: types.RunPatch) -> types.Run:
        """Change name, tags, notes or priority."""
        return await self._transport.send(operations.patch_run(run_id, changes))

    async def delete_run(self, run_id: str) -> None:
        """Remove an ended run with its logs, checkpoints and files."""
        await self._transport.send(operations.delete_run(run_id))

    async def cancel_run(self, run_id: str) -> types.Run:
        """End the run; a running one saves a checkpoint first."""
        return await self._transport.send(operations.act(run_id, "cancel"))

    async def pause_run(self, run_id: str) -> types.Run:
        """Save a checkpoint and wait until the run is resumed."""
        return await self._transport.send(operations.act(run_id, "pause"))

    async def resume_run(self, run_id: str) -> types.Run:
        """Go on from the last checkpoint."""
        return await self._transport.send(operations.act(run_id, "resume"))

    async def retry_run(self, run_id: str) -> types.Run:
        """A new run with the settings of one that has ended."""
        return await self._transport.send(operations.retry(run_id))

    async def attempts(self, run_id: str) -> types.Page[types.Attempt]:
        return await self._transport.send(operations.attempts(run_id))

    async def events(
        self, run_id: str, *, after: int = 0, kind: Sequence[str] = (), limit: int = 100
    ) -> types.Page[types.Event]:
        """What the trainer reported above sequence number `after`, oldest first."""
        return await self._transport.send(operations.events(run_id, after=after, kind=kind, limit=limit))

    async def logs(
        self, run_id: str, *, after: int = 0, limit: int = 65536, q: str | None = None
    ) -> types.LogPage:
        """The log from byte `after` on; `q` searches lines (then `limit` counts lines)."""
        return await self._transport.send(operations.logs(run_id, after=after, limit=limit, q=q))

    async def metrics(
        self,
        run_id: str,
        *,
        keys: Sequence[str] = (),
        max_points: int = 1000,
        x: Literal["step", "time", "tokens"] = "step",
    ) -> types.Metrics:
        """Metric series (all without `keys`), down-sampled with minima and maxima kept."""
        return await self._transport.send(operations.metrics(run_id, keys=keys, max_points=max_points, x=x))

    async def samples(self, run_id: str, *, after: int = 0, limit: int = 100) -> types.Page[types.Sample]:
        """Texts the model wrote while it trained, oldest first."""
        return await self._transport.send(operations.samples(run_id, after=after, limit=limit))

    def follow(
        self,
        run_id: str,
        *,
        channels: Sequence[str] = CHANNELS,
        after: Mapping[str, int] | None = None,
        patience_s: float = 60.0,
    ) -> AsyncStream:
        """Log, metrics and states as they happen, until the run ends; see `nanochat_client.stream`."""
        return AsyncStream(self._address, run_id, channels, after, patience_s)

    # ---------------------------------------------------------------- pipelines, checkpoints, evaluations

    async def create_pipeline(
        self,
        preset: str | None = None,
        *,
        name: str | None = None,
        steps: Sequence[types.PipelineStep] = (),
        overrides: dict[str, JsonObject] | None = None,
    ) -> types.Pipeline:
        """Start a shipped pipeline (`preset`) or one of `steps`; `overrides` by step name."""
        body = types.PipelineCreate(preset=preset, name=name, steps=list(steps), overrides=overrides or {})
        return await self._transport.send(operations.create_pipeline(body))

    async def pipelines(self, *, cursor: str | None = None, limit: int = 50) -> types.Page[types.Pipeline]:
        return await self._transport.send(operations.list_pipelines(cursor=cursor, limit=limit))

    async def pipeline(self, pipeline_id: str) -> types.Pipeline:
        return await self._transport.send(operations.get_pipeline(pipeline_id))

    async def cancel_pipeline(self, pipeline_id: str) -> types.Pipeline:
        """End every run of it that has not ended."""
        return await self._transport.send(operations.cancel_pipeline(pipeline_id))

    async def checkpoints(
        self,
        *,
        run: str | None = None,
        stage: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> types.Page[types.Checkpoint]:
        """Checkpoints and tokenizers, newest first."""
        return await self._transport.send(
            operations.list_checkpoints(run=run, stage=stage, cursor=cursor, limit=limit)
        )

    async def evaluations(
        self,
        *,
        run: str | None = None,
        pipeline: str | None = None,
        checkpoint: str | None = None,
        stage: str | None = None,
        name: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> types.Page[types.Evaluation]:
        """Results, newest first. `run` measured them, of `checkpoint`, which `stage` made."""
        return await self._transport.send(
            operations.evaluations(
                run=run, pipeline=pipeline, checkpoint=checkpoint, stage=stage, name=name, cursor=cursor,
                limit=limit,
            )
        )  # fmt: skip

    async def lineage(self, checkpoint_id: str) -> types.Lineage:
        """From a checkpoint back to data, tokenizer, config and code."""
        return await self._transport.send(operations.lineage(checkpoint_id))

    async def report(self, run_id: str) -> types.Report:
        """What a run and those it starts from did; of a pipeline's run, the whole pipeline."""
        return await self._transport.send(operations.report(run_id))

    async def pipeline_report(self, pipeline_id: str) -> types.Report:
        return await self._transport.send(operations.pipeline_report(pipeline_id))

    # ---------------------------------------------------------------- the service

    async def stages(self) -> types.Page[types.StageView]:
        return await self._transport.send(operations.stages())

    async def configs(self) -> types.Page[types.ConfigView]:
        """The presets that ship."""
        return await self._transport.send(operations.configs())

    async def plan(
        self,
        stage: str,
        *,
        config: str | None = None,
        overrides: JsonObject | None = None,
        gpus: int | None = None,
        gpu: str | None = None,
        target_vram_gb: float | None = None,
    ) -> types.Plan:
        """What such a run would need, and what is wrong with it; nothing is started."""
        body = types.PlanCreate(
            stage=stage,
            config=config,
            overrides=overrides or {},
            gpus=gpus,
            gpu=gpu,
            target_vram_gb=target_vram_gb,
        )
        return await self._transport.send(operations.plan(body))

    async def workers(self) -> types.Page[types.Worker]:
        return await self._transport.send(operations.workers())

    async def system(self) -> types.System:
        return await self._transport.send(operations.system())

    # ---------------------------------------------------------------- keys

    async def keys(self) -> types.Page[Key]:
        """Every key with its scopes and its last use. Needs an admin's key, as the next two."""
        return await self._transport.send(operations.list_keys())

    async def create_key(
        self, name: str, *, scopes: Sequence[str] = (), expires_in_s: int | None = None
    ) -> KeyCreated:
        """A fresh key; its `key` is shown this once. Without `scopes`: read, submit, operate and infer."""
        return await self._transport.send(operations.create_key(name, scopes, expires_in_s))

    async def revoke_key(self, key_id: str) -> None:
        """End a key and the sessions that were made with it."""
        return await self._transport.send(operations.revoke_key(key_id))

    # ---------------------------------------------------------------- models

    async def models(self) -> list[dict[str, Any]]:
        """Models that answer, as `/v1/models` lists them: aliases first, then newest first."""
        return await self._transport.send(operations.models())

    async def load_model(self, name: str) -> dict[str, Any]:
        """Load a model before its first request; returns when it is ready."""
        return await self._transport.send(operations.load_model(name, loaded=True))

    async def unload_model(self, name: str) -> dict[str, Any]:
        """End a model's engine; requests that run in it get an error."""
        return await self._transport.send(operations.load_model(name, loaded=False))

    async def promote(self, checkpoint_id: str, alias: str) -> types.Checkpoint:
        """Give a checkpoint a name of its own under `/v1/models`; a name in use moves over."""
        return await self._transport.send(operations.promote(checkpoint_id, alias))

    async def chat(self, messages: Sequence[Message], *, model: str = "latest", **options: Any) -> str:
        """The answer to a conversation. `options`: temperature, max_tokens, top_k, seed …"""
        return await self._transport.send(operations.chat(model, messages, options))

    async def chat_stream(
        self, messages: Sequence[Message], *, model: str = "latest", **options: Any
    ) -> AsyncIterator[str]:
        """The answer piece by piece. Leaving the loop ends the generation."""
        async for line in self._transport.lines(operations.chat_stream(model, messages, options)):
            text = operations.chat_delta(line)
            if text is None:
                return
            if text:
                yield text
