"""The SDK, for asyncio: the same names as `Client`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from nanochat_client import types
from nanochat_client.address import Address
from nanochat_client.bound import Async
from nanochat_client.calls import Calls, CheckpointCalls, FileCalls, RunCalls
from nanochat_client.download import Part, Progress
from nanochat_client.exports import EVERY_S, checked, part_of
from nanochat_client.handles import AsyncRun, with_verbs
from nanochat_client.operations import artefacts, models
from nanochat_client.operations.core import Message, Operation
from nanochat_client.stream import CHANNELS, AsyncStream

if TYPE_CHECKING:
    import openai


class AsyncClient(Calls, Async):
    """A nanochat training service. Use it with `async with`, or call `await close()`.

    `url` and `api_key` come from NANOCHAT_URL and NANOCHAT_API_KEY when absent. Methods return the models
    of `nanochat_client.types` and raise the errors of `nanochat_client.errors`.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout_s: float = 60.0
    ) -> None:
        from nanochat_client._http import AsyncTransport  # see Client

        self._address = Address(url, api_key)
        self._transport = AsyncTransport(self._address, timeout_s)

    @property
    def url(self) -> str:
        return self._address.url

    @property
    def runs(self) -> AsyncRuns:
        """`await client.runs()` lists; `client.runs.create(…)` and `client.runs.get(id)` are awaited too."""
        return AsyncRuns(self)

    @property
    def checkpoints(self) -> AsyncCheckpoints:
        """As `checkpoints` of `Client`; what it does is awaited."""
        return AsyncCheckpoints(self)

    @property
    def files(self) -> AsyncFiles:
        """`await client.files()` lists, `await client.files.upload(path)` uploads, and so on."""
        return AsyncFiles(self)

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

    async def send(self, operation: Operation[Any]) -> Any:
        return with_verbs(await self._transport.send(operation), AsyncRun, self)

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

    async def download(
        self, what: str | types.Export, file: str | Path, *, progress: Progress | None = None
    ) -> Path:
        """The files of a checkpoint (its id) or a ready export as one tar archive, at `file`.

        Goes on where an earlier call stopped.
        """
        if isinstance(what, str):
            found = await self.checkpoint(what)
            part = Part(Path(file), found.sha256, progress)
            return await self._transport.fetch(artefacts.download(what), part)
        operation = artefacts.download_export(what.checkpoint, what.name)
        return await self._transport.fetch(operation, part_of(what, file, progress))

    async def chat_stream(
        self, messages: Sequence[Message], *, model: str = "latest", **options: Any
    ) -> AsyncIterator[str]:
        """The answer piece by piece. Leaving the loop ends the generation."""
        async for line in self._transport.lines(models.chat_stream(messages, model, options)):
            text = models.chat_delta(line)
            if text is None:
                return
            if text:
                yield text

    def openai(self, **options: Any) -> openai.AsyncOpenAI:
        """OpenAI's own client, for this service. Raises ImportError when it is not installed."""
        from openai import AsyncOpenAI  # `pip install openai`

        return AsyncOpenAI(**{**self._address.for_openai(), **options})


class AsyncRuns(RunCalls, Async):
    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def send(self, operation: Operation[Any]) -> Any:
        return await self._client.send(operation)


class AsyncCheckpoints(CheckpointCalls, Async):
    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def send(self, operation: Operation[Any]) -> Any:
        return await self._client.send(operation)

    async def export(
        self,
        checkpoint_id: str,
        *,
        format: Literal["hf"] = "hf",
        dtype: Literal["float32", "bfloat16"] = "float32",
        wait: bool = False,
    ) -> types.Export:
        """Have a checkpoint written for other software on the service's host; `download` fetches it.

        `wait`: until it is ready. Raises ExportFailed when it was waited for in vain.
        """
        export = await self.start_export(checkpoint_id, format=format, dtype=dtype)
        while wait and export.state == "running":
            await asyncio.sleep(EVERY_S)
            export = await self.get_export(checkpoint_id, export.name)
        return checked(export) if wait else export


class AsyncFiles(FileCalls, Async):
    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def send(self, operation: Operation[Any]) -> Any:
        return await self._client.send(operation)

    async def upload(
        self,
        path: str | Path,
        *,
        kind: str | None = None,
        name: str | None = None,
        progress: Progress | None = None,
    ) -> types.File:
        """Bring a file to the service and have it checked: see `Files.upload` of the other client."""
        import asyncio  # takes longer to import than most of this

        from nanochat_client.upload import Sending

        sending = Sending(Path(path), kind, name, progress)
        await asyncio.to_thread(sending.measure)
        return await self._client._transport.push(sending)
