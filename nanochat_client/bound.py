"""Operations as methods. What a method returns depends on whose it is: `Sync` waits, `Async` is awaited.

`create_run = RunCall(runs.create_run)` in a class makes a method that takes the operation's arguments, sends
it and returns its answer. Signatures, types and docstrings are the operation's own; asked of the class, the
attribute is the operation itself. The kinds differ only in what a type checker is told.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from nanochat_client import types
from nanochat_client.operations.core import Operation

if TYPE_CHECKING:
    from nanochat_client.handles import AsyncRun, Run

P = ParamSpec("P")
T = TypeVar("T")


class Sync:
    """Something that sends operations and waits for their answers."""

    def send(self, operation: Operation[Any]) -> Any:
        raise NotImplementedError


class Async:
    """Something that sends operations, to be awaited."""

    async def send(self, operation: Operation[Any]) -> Any:
        raise NotImplementedError


class _Method:
    def __init__(self, operation: Callable[..., Operation[Any]]) -> None:
        self.operation = operation

    def bind(self, owner: Any, *first: Any) -> Any:
        if owner is None:
            return self.operation

        @wraps(self.operation)
        def call(*args: Any, **kwargs: Any) -> Any:
            return owner.send(self.operation(*first, *args, **kwargs))

        return call


class Call(_Method, Generic[P, T]):
    """Answers as the operation says."""

    def __init__(self, operation: Callable[P, Operation[T]]) -> None:
        super().__init__(operation)

    @overload
    def __get__(self, owner: None, kind: type) -> Callable[P, Operation[T]]: ...
    @overload
    def __get__(self, owner: Sync, kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, owner: Async, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        return self.bind(owner)


class RunCall(_Method, Generic[P]):
    """Answers a run that has methods of its own."""

    def __init__(self, operation: Callable[P, Operation[types.Run]]) -> None:
        super().__init__(operation)

    @overload
    def __get__(self, owner: None, kind: type) -> Callable[P, Operation[types.Run]]: ...
    @overload
    def __get__(self, owner: Sync, kind: type) -> Callable[P, Run]: ...
    @overload
    def __get__(self, owner: Async, kind: type) -> Callable[P, Coroutine[Any, Any, AsyncRun]]: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        return self.bind(owner)


class RunsCall(_Method, Generic[P]):
    """Answers a page of such runs."""

    def __init__(self, operation: Callable[P, Operation[types.Page[types.Run]]]) -> None:
        super().__init__(operation)

    @overload
    def __get__(self, owner: None, kind: type) -> Callable[P, Operation[types.Page[types.Run]]]: ...
    @overload
    def __get__(self, owner: Sync, kind: type) -> Callable[P, types.Page[Run]]: ...
    @overload
    def __get__(self, owner: Async, kind: type) -> Callable[P, Coroutine[Any, Any, types.Page[AsyncRun]]]: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        return self.bind(owner)


class CallOfRun(_Method, Generic[P, T]):
    """A method of a run: the operation without its first argument, the id."""

    def __init__(self, operation: Callable[Concatenate[str, P], Operation[T]]) -> None:
        super().__init__(operation)

    @overload
    def __get__(self, owner: None, kind: type) -> Callable[Concatenate[str, P], Operation[T]]: ...
    @overload
    def __get__(self, owner: Run, kind: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, owner: AsyncRun, kind: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        return self.bind(owner, getattr(owner, "id", ""))


class RunCallOfRun(_Method, Generic[P]):
    """A method of a run that answers a run."""

    def __init__(self, operation: Callable[Concatenate[str, P], Operation[types.Run]]) -> None:
        super().__init__(operation)

    @overload
    def __get__(self, owner: None, kind: type) -> Callable[Concatenate[str, P], Operation[types.Run]]: ...
    @overload
    def __get__(self, owner: Run, kind: type) -> Callable[P, Run]: ...
    @overload
    def __get__(self, owner: AsyncRun, kind: type) -> Callable[P, Coroutine[Any, Any, AsyncRun]]: ...
    def __get__(self, owner: Any, kind: type) -> Any:
        return self.bind(owner, getattr(owner, "id", ""))
