"""Every fault once. `make test-faults` does each many times, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, tries
from tests.faults.rows import ROWS, Row
from tests.services import Postgres

pytestmark = pytest.mark.timeout(900)  # the time of two cores that others use too


@pytest.fixture(params=["sqlite", "postgresql"])
def campaign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Campaign]:
    if request.param == "sqlite":
        made = Campaign(tmp_path)
        yield made
        made.close()
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database() as url:
        made = Campaign(tmp_path, url)
        yield made
        made.close()


def test_a_run_survives_what_happens_to_the_service(
    campaign: Campaign, request: pytest.FixtureRequest
) -> None:
    """Half of the rows on each database, so that both have kills, absences and users' wishes."""
    broken = {}
    for row, counts in tries(campaign, half(request.node.callspec.params["campaign"]), 1, seed=7):
        if counts.held != counts.tried:
            broken[row.name] = counts.broken
    assert broken == {}


def half(database: str) -> list[Row]:
    return [row for number, row in enumerate(ROWS) if number % 2 == (database == "postgresql")]
