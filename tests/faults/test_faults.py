"""Every fault once, each on one of the databases. `make test-faults` does each many times, on both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.campaign import Campaign
from tests.faults.rows import ROWS, Row
from tests.services import Postgres

#: turn and turn about, so that both databases have kills, absences and users' wishes; one after the other,
#: because a campaign takes a while to make (tests/conftest.py keeps each on one worker for the same reason)
TRIES = [(database, row) for start, database in enumerate(("sqlite", "postgresql")) for row in ROWS[start::2]]
SEED = 7
pytestmark = pytest.mark.timeout(300)  # the time of two cores that others use too


@pytest.fixture(scope="module")
def campaign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    place = tmp_path_factory.mktemp("faults")
    if request.param == "sqlite":
        made = Campaign(place)
        yield made
        made.close()
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database() as url:
        made = Campaign(place, url)
        yield made
        made.close()


@pytest.mark.parametrize(
    ("campaign", "row"),
    [pytest.param(database, row, id=f"{row.name}-{database}") for database, row in TRIES],
    indirect=["campaign"],
    scope="module",
)
def test_a_run_survives(campaign: Campaign, row: Row) -> None:
    if why := row.needs():
        pytest.skip(f"not tried: {why}")
    try:
        campaign.attempt(row, SEED * 1000)
    except BaseException:
        campaign.repair()
        raise
