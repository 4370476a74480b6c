"""`python -m nanochat.file_check KIND NAME FILE`: whether an uploaded file is what it says it is.

Prints one line of JSON: `sha256`, and either `items` (conversations, documents; null for a preset) or
`message`, one sentence that names the first bad line. Nothing of the file is executed. It runs in a process
of its own because files come from users: memory and CPU time are bounded, and a reader that crashes takes
nothing along. What a kind needs is imported with it: who uploads waits for this. Not covered: whether the
text is worth training on.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nanochat.errors import DataError

LONGEST_LINE_BYTES = 16 * 1024 * 1024
LONGEST_MESSAGE = 1000
CHUNK_BYTES = 1024 * 1024
MEMORY_BYTES = 4 * 2**30
CPU_S = 3600


def check(kind: str, name: str, file: Path) -> int | None:
    """What is in the file: conversations or documents; None for a preset. Raises DataError."""
    match kind:
        case "conversations":
            return _conversations(name, file)
        case "preset":
            _preset(name, file)
            return None
    match Path(name).suffix:
        case ".parquet":
            return _parquet(name, file)
        case ".jsonl":
            return _texts(name, file)
        case _:
            return _plain(name, file)


def _conversations(name: str, file: Path) -> int:
    from nanochat.chat import turns
    from nanochat.sources.folder import encodable
    from nanochat.tasks.conversations import messages
    from nanochat.tasks.datasets import parsed

    count = 0
    for number, line in _lines(name, file):
        where = f"{name}, line {number}"
        for _, parts in turns(messages(parsed(line, Path(name), number), where)):
            for _, text in parts:
                encodable(text, where)
        count += 1
    if not count:
        raise DataError(f"{name} holds no conversation")
    return count


def _texts(name: str, file: Path) -> int:
    from nanochat.sources.folder import text_of

    count = 0
    for number, line in _lines(name, file):
        where = f"{name}, line {number}"
        try:
            text = text_of(line.decode("utf-8-sig"), where)
        except UnicodeDecodeError:
            raise DataError(f"{where}: not UTF-8") from None
        count += bool(text.strip())
    return _some(name, count)


def _plain(name: str, file: Path) -> int:
    from nanochat.sources.folder import pieces

    decoder, lines = codecs.getincrementaldecoder("utf-8")(), 1
    with file.open("rb") as source:
        while data := source.read(CHUNK_BYTES):
            try:
                decoder.decode(data)
            except UnicodeDecodeError as error:
                lines += error.object.count(b"\n", 0, error.start)
                raise DataError(f"{name}, line {lines}: not UTF-8 text") from None
            lines += data.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise DataError(f"{name}, line {lines}: not UTF-8 text") from None
    with file.open(encoding="utf-8-sig") as text:
        return _some(name, sum(1 for piece in pieces(text) if piece.strip()))


def _parquet(name: str, file: Path) -> int:
    import pyarrow as pa

    from nanochat.sources.shards import open_shard, read_group

    try:
        parquet = open_shard(file)
        kind = parquet.schema_arrow.field("text").type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise DataError(f"{name}: its column text holds {kind}, not text")
        return _some(name, sum(len(read_group(parquet, group)) for group in range(parquet.num_row_groups)))
    except DataError as error:
        raise DataError(str(error).replace(str(file), name)) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} cannot be read: {error}") from None


def _preset(name: str, file: Path) -> None:
    """Some stage knows every key of it, and takes every value by itself."""
    from nanochat.configurator import MAX_PRESET_BYTES, PresetError, nearest_name, preset_parser
    from nanochat.stages import STAGES

    with file.open("rb") as source:
        data = source.read(MAX_PRESET_BYTES + 1)
    try:
        values = preset_parser(Path(name))(data.decode(), name)
    except UnicodeDecodeError:
        raise DataError(f"{name}: not UTF-8 text") from None
    except PresetError as error:
        raise DataError(str(error)) from None
    if not values:
        raise DataError(f"{name} sets nothing")
    unknown = {stage.name: values.keys() - stage.config.model_fields.keys() for stage in STAGES.values()}
    closest = min(unknown, key=lambda stage: len(unknown[stage]))
    if unknown[closest]:
        key = sorted(unknown[closest])[0]
        nearest = nearest_name(key, STAGES[closest].config.model_fields)
        hint = f"; the nearest key that stage {closest!r} knows is {nearest!r}" if nearest else ""
        raise DataError(f"{name}: no stage knows all of its keys, {key!r} among them{hint}")
    wrong = [_refusal(stage, values) for stage, keys in unknown.items() if not keys]
    if all(wrong):
        raise DataError(f"{name}: {wrong[0]}")


def _refusal(stage: str, values: dict[str, Any]) -> str:
    from nanochat.configurator import ConfigError, parse
    from nanochat.stages import STAGES

    try:
        parse(STAGES[stage], values)
    except ConfigError as error:
        return str(error)
    return ""


def _lines(name: str, file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers. Raises DataError for one that is no line any more."""
    with file.open("rb") as source:
        number = 0
        while line := source.readline(LONGEST_LINE_BYTES + 1):
            number += 1
            if len(line) > LONGEST_LINE_BYTES:
                raise DataError(f"{name}, line {number}: longer than {LONGEST_LINE_BYTES >> 20} MiB")
            if line.strip():
                yield number, line


def _some(name: str, count: int) -> int:
    if not count:
        raise DataError(f"{name} holds no text")
    return count


def _bounded() -> None:
    """No more memory, time or core files than a check may need."""
    for what, most in (
        (resource.RLIMIT_DATA, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main(argv: Sequence[str] | None = None) -> int:
    kind, name, path = sys.argv[1:] if argv is None else argv
    _bounded()
    with Path(path).open("rb") as source:
        report: dict[str, Any] = {"sha256": hashlib.file_digest(source, "sha256").hexdigest()}
    try:
        report["items"] = check(kind, name, Path(path))
    except DataError as error:
        report["message"] = str(error)[:LONGEST_MESSAGE]
    except MemoryError:
        report["message"] = f"{name} needs more than {MEMORY_BYTES >> 30} GiB of memory to be read"
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
