"""What every wire type is built on."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

T = TypeVar("T")
Name = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$"
#: what every database holds
STORABLE = r"^[^\x00]*$"
Id = r"^[0-9A-Za-z]{1,16}$"
#: no control or format characters, and of the spaces the plain one alone
TAG = (
    r"^[^\x00-\x1f\x7f-\xa0\xad\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000"
    r"\ue000-\uf8ff\ufeff\ufff0-\ufffb\ufffe\uffff]{1,64}$"
)


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("a number is meant, without quotes")
    return value


#: numbers of requests as JSON has them: 1.0 is a whole one; `false` and "1" are none, nor is infinity.
#: Bounds stand before NUMBER, or the schema of a field that may be null would not say them
NUMBER = BeforeValidator(_number)
Whole = Annotated[int, NUMBER]
Real = Annotated[float, Field(allow_inf_nan=False), NUMBER]
#: what a column and a gauge hold, and every language's JSON
Count = Annotated[int, Field(ge=0, le=2**53), NUMBER]
Gpus = Annotated[int, Field(ge=0, le=64), NUMBER]
Flag = Annotated[bool, Field(strict=True)]
#: a pattern that the schema says and code checks, with a sentence that says more than "no match"
Storable = Annotated[str, Field(json_schema_extra={"pattern": STORABLE})]
RowId = Annotated[str, Field(json_schema_extra={"pattern": Id})]
Tag = Annotated[str, Field(json_schema_extra={"pattern": TAG, "minLength": 1, "maxLength": 64})]


class Wire(BaseModel):
    """Answers: read by clients that may be older than the server, so unknown keys are ignored."""

    # a program uses few of these models: each is built when it is first used, which halves the import
    model_config = ConfigDict(use_attribute_docstrings=True, defer_build=True)


class Request(Wire):
    """Requests: an unknown key is the caller's mistake and is refused."""

    model_config = ConfigDict(extra="forbid", defer_build=False)


class Page(Wire, Generic[T]):
    items: list[T]
    next_cursor: str | None = None
