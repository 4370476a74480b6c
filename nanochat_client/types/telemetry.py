"""What a trainer reported: events, log, metric series, samples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import JsonValue

from nanochat_client.types.wire import Wire


class Event(Wire):
    seq: int
    kind: str
    step: int | None = None
    t: float
    attempt: int
    data: dict[str, JsonValue]


class LogChunk(Wire):
    offset: int
    text: str


class LogPage(Wire):
    items: list[LogChunk]
    first: int
    """Offset of the first byte in `items`."""
    last: int
    """Offset after the last byte in `items`: pass it as `after` to go on."""
    end: int
    """Offset after the last byte stored."""


class Series(Wire):
    key: str
    x: list[float]
    y: list[float | None]


class Metrics(Wire):
    x: Literal["step", "time", "tokens"]
    series: list[Series]
    last: int
    """Sequence number of the newest metric event: the cursor to follow from."""

    def to_pandas(self) -> Any:
        """A DataFrame with a column for each key, indexed by `x`; NaN where a key has no value.

        Raises ImportError when pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas() makes a pandas.DataFrame: pip install pandas") from None
        columns = {
            series.key: pandas.Series(series.y, index=series.x, dtype="float64") for series in self.series
        }
        table = pandas.DataFrame(columns)
        table.index.name = self.x
        return table


class Sample(Wire):
    step: int
    prompt: str
    text: str
    t: float


class BatchToken(Wire):
    text: str
    """Bytes that are no UTF-8 are escaped: `\\xe4`."""
    ids: list[int]
    """More than one when only together they are text."""
    counts: bool
    """The loss is taken of it."""
    special: bool = False


class BatchRow(Wire):
    length: int
    """Tokens of the row, shown or not, without padding."""
    tokens: list[BatchToken]
    reward: float | None = None
    advantage: float | None = None


class FirstBatch(Wire):
    """What a training run read first: some rows of a micro-batch of rank 0."""

    step: int
    """The optimizer step they are of."""
    attempt: int
    t: float
    size: int
    """Rows of the micro-batch."""
    rows: list[BatchRow]
