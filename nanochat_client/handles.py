"""A run in the hands of a program: the fields of `types.Run`, and methods that ask the service about it.

Fields are as they were when the run was read; `refresh()` reads it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import PrivateAttr

from nanochat_client import types
from nanochat_client.bound import Async, CallOfRun, RunCallOfRun, Sync
from nanochat_client.errors import RunFailed
from nanochat_client.operations import runs
from nanochat_client.operations.core import Operation
from nanochat_client.stream import CHANNELS, AsyncStream, End, Stream

if TYPE_CHECKING:
    from nanochat_client.aio import AsyncClient
    from nanochat_client.client import Client

ENDED = frozenset({types.RunState.SUCCEEDED, types.RunState.FAILED, types.RunState.CANCELLED})


class RunVerbs:
    """The methods that both kinds of runs have from one description."""

    refresh = RunCallOfRun(runs.get_run)
    cancel = RunCallOfRun(runs.cancel_run)
    pause = RunCallOfRun(runs.pause_run)
    resume = RunCallOfRun(runs.resume_run)
    retry = RunCallOfRun(runs.retry_run)
    patch = RunCallOfRun(runs.patch_run)
    delete = CallOfRun(runs.delete_run)
    attempts = CallOfRun(runs.attempts)
    events = CallOfRun(runs.events)
    logs = CallOfRun(runs.logs)
    metrics = CallOfRun(runs.metrics)
    samples = CallOfRun(runs.samples)
    first_batch = CallOfRun(runs.first_batch)
    checkpoints = CallOfRun(runs.run_checkpoints)
    report = CallOfRun(runs.report)


class Run(Sync, RunVerbs, types.Run):
    _client: Client = PrivateAttr()

    def send(self, operation: Operation[Any]) -> Any:
        return self._client.send(operation)

    def follow(
        self,
        channels: Sequence[str] = CHANNELS,
        *,
        after: Mapping[str, int] | None = None,
        patience_s: float = 60.0,
    ) -> Stream:
        """Log, metrics and states as they happen, until the run ends; see `nanochat_client.stream`."""
        return self._client.follow(self.id, channels=channels, after=after, patience_s=patience_s)

    def wait(self, *, check: bool = True, patience_s: float = 60.0) -> Run:
        """The run once it has ended. Raises RunFailed when it has not succeeded, unless `check` is False."""
        for item in self.follow(("state",), patience_s=patience_s):
            if isinstance(item, End):
                break
        return _checked(self.refresh()) if check else self.refresh()


class AsyncRun(Async, RunVerbs, types.Run):
    _client: AsyncClient = PrivateAttr()

    async def send(self, operation: Operation[Any]) -> Any:
        return await self._client.send(operation)

    def follow(
        self,
        channels: Sequence[str] = CHANNELS,
        *,
        after: Mapping[str, int] | None = None,
        patience_s: float = 60.0,
    ) -> AsyncStream:
        """Log, metrics and states as they happen, until the run ends; see `nanochat_client.stream`."""
        return self._client.follow(self.id, channels=channels, after=after, patience_s=patience_s)

    async def wait(self, *, check: bool = True, patience_s: float = 60.0) -> AsyncRun:
        """The run once it has ended. Raises RunFailed when it has not succeeded, unless `check` is False."""
        async for item in self.follow(("state",), patience_s=patience_s):
            if isinstance(item, End):
                break
        return _checked(await self.refresh()) if check else await self.refresh()


def with_verbs(answer: Any, kind: type[Run] | type[AsyncRun], client: Any) -> Any:
    """The answer, its runs as `kind`; what holds no runs as it is."""
    if isinstance(answer, types.Run):
        run = kind.model_construct(answer.model_fields_set, **dict(answer))
        run._client = client
        return run
    if isinstance(answer, types.Page):
        return answer.model_copy(update={"items": [with_verbs(item, kind, client) for item in answer.items]})
    if isinstance(answer, types.Pipeline):
        return answer.model_copy(update={"runs": [with_verbs(run, kind, client) for run in answer.runs]})
    return answer


R = TypeVar("R", Run, AsyncRun)


def _checked(run: R) -> R:
    if run.state is not types.RunState.SUCCEEDED:
        said = f": {run.message}" if run.message else ""
        raise RunFailed(f"run {run.id} ({run.name}) has {run.state}{said}", code=str(run.reason or run.state))
    return run
