"""The MOVES table is what the documents say, and nothing moves beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanochat_client.types import RunState
from server.db import Database
from server.models import Run
from server.runs import repository
from server.runs.states import MOVES, TERMINAL, sources
from server.settings import Settings

ROOT = Path(__file__).parents[3]


def test_every_state_has_a_row_and_terminal_states_are_final() -> None:
    assert set(MOVES) == set(RunState)
    assert {state for state, following in MOVES.items() if not following} == TERMINAL


def test_every_state_can_reach_an_end() -> None:
    ends = set(TERMINAL)
    while grown := {s for s, following in MOVES.items() if s not in ends and following & ends}:
        ends |= grown
    assert ends == set(RunState)


async def test_move_obeys_the_table_for_every_pair_of_states(settings: Settings) -> None:
    db = Database(settings.sqlalchemy_url)
    try:
        for source in RunState:
            for target in RunState:
                run_id = f"r{source.value[:4]}{target.value[:4]}"
                async with db.write() as session:
                    session.add(Run(id=run_id, stage="base", name="x", state=source, config={}, gpus=0,
                                    restarts_left=0))  # fmt: skip
                async with db.write() as session:
                    moved = await repository.move(session, run_id, target)
                async with db.read() as session:
                    run = await repository.get(session, run_id)
                assert moved == (source in sources(target)), (source, target)
                assert run.state == (target if moved else source)
                assert run.version == (2 if moved else 1)
                assert (run.ended_at is not None) == (moved and target in TERMINAL)
    finally:
        await db.close()


def test_only_the_repository_writes_a_runs_state_and_only_the_edge_commits() -> None:
    commits, states = set(), set()
    for path in (ROOT / "server").rglob("*.py"):
        text = path.read_text()
        where = str(path.relative_to(ROOT / "server"))
        commits |= {where} if ".commit(" in text else set()
        states |= {where} if "run.state = " in text else set()
    assert commits <= {"db.py", "keys/local.py"}  # the latter is a command of its own, with no server
    assert states == set()


@pytest.mark.parametrize("target", sorted(TERMINAL))
async def test_of_two_movers_one_wins(settings: Settings, target: RunState) -> None:
    import asyncio

    db = Database(settings.sqlalchemy_url)
    try:
        async with db.write() as session:
            session.add(Run(id="r1", stage="base", name="x", state="running", config={}, gpus=0,
                            restarts_left=0))  # fmt: skip

        async def mover(to: RunState) -> bool:
            async with db.write() as session:
                return await repository.move(session, "r1", to)

        results = await asyncio.gather(mover(RunState.SUCCEEDED), mover(RunState.FAILED), mover(target))
        assert results.count(True) == 1
    finally:
        await db.close()
