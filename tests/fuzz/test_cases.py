"""What fuzzing found stays found: every case and seed holds the promises of its target, without atheris."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.db import Database
from server.settings import Settings
from tests.fuzz import CASES, TARGETS, cases, ingest, load
from tests.fuzz.promises import nothing_happens

CASE_FILES = [pytest.param(name, file, id=f"{name}-{file.name}") for name in TARGETS for file in cases(name)]


@pytest.mark.parametrize(("name", "file"), CASE_FILES)
def test_a_case_that_once_broke_a_promise_breaks_it_no_more(name: str, file: Path) -> None:
    load(name).one(file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_hold_every_promise(name: str) -> None:
    target = load(name)
    seeds = [*target.seeds()]
    assert len(seeds) > 3 and max(map(len, seeds)) <= target.max_bytes
    for data in seeds:
        target.one(data)


def shipped() -> Iterator[bytes]:
    """Every input of the targets that are shipped to the server."""
    yield from ingest.seeds()
    for name in ("events", "ingest"):
        for file in cases(name):
            yield file.read_bytes()


def test_both_databases_take_whatever_a_worker_ships(settings: Settings) -> None:
    async def store() -> None:
        database = Database(settings.sqlalchemy_url)
        try:
            for data in shipped():
                await ingest.store_and_read(database, data)
        finally:
            await database.close()

    asyncio.run(store())


def test_there_are_cases_and_all_of_them_are_run() -> None:
    assert {file.parent.name for file in CASES.glob("*/*")} <= TARGETS.keys()
    assert len(CASE_FILES) == sum(1 for _ in CASES.glob("*/*")) > 10


@pytest.mark.parametrize("name", ["presets", "overrides", "events", "conversations", "uploads"])
def test_a_target_needs_no_torch(name: str) -> None:
    program = f"import sys, tests.fuzz; tests.fuzz.load({name!r}); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_the_watch_sees_what_happens() -> None:
    with pytest.raises(AssertionError, match="exec"), nothing_happens("compile"):
        exec(compile("1", "<watched>", "exec"))
    with pytest.raises(AssertionError, match="open"), nothing_happens():
        Path(__file__).read_bytes()


def test_without_atheris_it_is_said_how_to_get_it() -> None:
    program = (
        "import sys; sys.modules['atheris'] = None; from tests.fuzz.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", program, "events"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "pip install atheris" in ended.stderr
