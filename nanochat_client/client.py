"""The SDK, for programs that wait."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from nanochat_client import types
from nanochat_client.address import Address
from nanochat_client.bound import Sync
from nanochat_client.calls import Calls, CheckpointCalls, FileCalls, RunCalls
from nanochat_client.download import Part, Progress
from nanochat_client.exports import EVERY_S, checked, part_of
from nanochat_client.handles import Run, with_verbs
from nanochat_client.operations import artefacts, models
from nanochat_client.operations.core import Message, Operation
from nanochat_client.stream import CHANNELS, Stream

if TYPE_CHECKING:
    import openai


class Client(Calls, Sync):
    """A nanochat training service. Use it with `with`, or call `close()`.

    `url` and `api_key` come from NANOCHAT_URL and NANOCHAT_API_KEY when absent. Methods return the models
    of `nanochat_client.types` and raise the errors of `nanochat_client.errors`.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, timeout_s: float = 60.0
    ) -> None:
        from nanochat_client._http import Transport  # httpx takes longer to import than the rest of this

        self._address = Address(url, api_key)
        self._transport = Transport(self._address, timeout_s)

    @property
    def url(self) -> str:
        return self._address.url

    @property
    def runs(self) -> Runs:
        """`client.runs()` lists, `client.runs.create(…)` starts, `client.runs.get(id)` reads one."""
        return Runs(self)

    @property
    def checkpoints(self) -> Checkpoints:
        """`client.checkpoints()` lists, `.get(id)` reads one, `.export(id)` has one written out."""
        return Checkpoints(self)

    @property
    def files(self) -> Files:
        """`client.files()` lists, `client.files.upload(path)` uploads; `get` and `delete` take an id."""
        return Files(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def send(self, operation: Operation[Any]) -> Any:
        return with_verbs(self._transport.send(operation), Run, self)

    def follow(
        self,
        run_id: str,
        *,
        channels: Sequence[str] = CHANNELS,
        after: Mapping[str, int] | None = None,
        patience_s: float = 60.0,
    ) -> Stream:
        """Log, metrics and states as they happen, until the run ends; see `nanochat_client.stream`."""
        return Stream(self._address, run_id, channels, after, patience_s)

    def download(
        self, what: str | types.Export, file: str | Path, *, progress: Progress | None = None
    ) -> Path:
        """The files of a checkpoint (its id) or a ready export as one tar archive, at `file`.

        Goes on where an earlier call stopped.
        """
        if isinstance(what, str):
            found = self.checkpoint(what)
            part = Part(Path(file), found.sha256, progress)
            return self._transport.fetch(artefacts.download(what), part)
        operation = artefacts.download_export(what.checkpoint, what.name)
        return self._transport.fetch(operation, part_of(what, file, progress))

    def chat_stream(
        self, messages: Sequence[Message], *, model: str = "latest", **options: Any
    ) -> Iterator[str]:
        """The answer piece by piece. Leaving the loop ends the generation."""
        for line in self._transport.lines(models.chat_stream(messages, model, options)):
            text = models.chat_delta(line)
            if text is None:
                return
            if text:
                yield text

    def openai(self, **options: Any) -> openai.OpenAI:
        """OpenAI's own client, for this service. Raises ImportError when it is not installed."""
        from openai import OpenAI  # `pip install openai`

        return OpenAI(**{**self._address.for_openai(), **options})


class Runs(RunCalls, Sync):
    def __init__(self, client: Client) -> None:
        self._client = client

    def send(self, operation: Operation[Any]) -> Any:
        return self._client.send(operation)


class Checkpoints(CheckpointCalls, Sync):
    def __init__(self, client: Client) -> None:
        self._client = client

    def send(self, operation: Operation[Any]) -> Any:
        return self._client.send(operation)

    def export(
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
        export = self.start_export(checkpoint_id, format=format, dtype=dtype)
        while wait and export.state == "running":
            time.sleep(EVERY_S)
            export = self.get_export(checkpoint_id, export.name)
        return checked(export) if wait else export


class Files(FileCalls, Sync):
    def __init__(self, client: Client) -> None:
        self._client = client

    def send(self, operation: Operation[Any]) -> Any:
        return self._client.send(operation)

    def upload(
        self,
        path: str | Path,
        *,
        kind: str | None = None,
        name: str | None = None,
        progress: Progress | None = None,
    ) -> types.File:
        """Bring a file to the service and have it checked; goes on where an earlier call stopped.

        `kind`: conversations, text or preset; by default what the file looks like. `name`: by default the
        file's own, in small letters. `progress`: called with the bytes that are there and those of the
        whole. The answer's `path` is what a run is told. Raises Invalid for a file that is rejected, with its
        first bad line, and Conflict when another file has the name.
        """
        from nanochat_client.upload import Sending

        sending = Sending(Path(path), kind, name, progress)
        sending.measure()
        return self._client._transport.push(sending)
