"""Two hosts on a real network, one of them cut off in mid-run and then back. `pytest -s` prints the times."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.network import why_not
from tests.hosts.site import LEASE_S, STEPS, Followers, Site, Watch
from tests.services import WORKER_TOKEN, eventually
from tests.worker.test_worker import ended, post

pytestmark = pytest.mark.timeout(300)
WHOLE = list(range(1, STEPS + 1))
#: few: a rank that has a host for itself takes all its cores, and here two hosts share them
NODE_STEPS = 40


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Site]:
    if why := why_not():
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            patch.delenv(name)  # it would not be found from in there
        running = Site(tmp_path_factory.mktemp("site"), sqlite_template)
        yield running
        running.close()


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> dict[int, float]:
    """Losses of a run that nobody disturbs, on one host."""
    run_id = site.begin()
    assert ended(site.service, run_id)["state"] == "succeeded"
    losses = site.losses(run_id)
    assert list(losses) == WHOLE
    return losses


def test_a_host_that_is_cut_off_stops_before_another_goes_on_and_takes_work_again_when_it_is_back(
    site: Site, undisturbed: dict[int, float]
) -> None:
    run_id = site.begin()
    followers = Followers(site, run_id, 2)
    with Watch(site, run_id) as watch:
        followers.start()
        site.come_to(run_id, 50)
        lost = site.attempts(run_id)[0]["host"]
        other = next(name for name in site.names if name != lost)
        site.network.cut(lost)
        cut_at, cut_t = time.monotonic(), time.time()
        eventually(lambda: (2, other) in watch.spans, 60, every_s=0.05)
        stored = site.stored(run_id)
        with site.frozen(run_id, other):
            site.network.mend(lost)
            mended_at = time.monotonic()
            eventually(lambda: lost in site.alive(), 40, every_s=0.05)
            back_s = time.monotonic() - mended_at

            more = {"data": str(site.place / "prose.txt"), "vocab_size": 300}
            further = post(site.service, stage="tokenizer", overrides=more)
            assert ended(site.service, further)["state"] == "succeeded"
            assert [attempt["host"] for attempt in site.attempts(further)] == [lost], "the other one is busy"
            assert site.get(f"/runs/{run_id}")["state"] in ("starting", "running")
        assert ended(site.service, run_id)["state"] == "succeeded"

    gone, heir = watch.spans[1, lost], watch.spans[2, other]
    stopped_s, started_s = gone.last_s - cut_at, heir.first_s - cut_at
    trained_s = resumed_at(site, run_id, 2) - cut_t
    print(
        f"\ncut off: stopped after {stopped_s:.1f} s, started elsewhere after {started_s:.1f} s, training "
        f"there after {trained_s:.1f} s, heard of again {back_s:.1f} s after the cable was back"
    )
    assert not watch.twice and set(watch.spans) == {(1, lost), (2, other)}
    assert stopped_s < LEASE_S + 0.5 < started_s
    attempts = site.attempts(run_id)
    assert [attempt["state"] for attempt in attempts] == ["lost", "succeeded"]
    assert attempts[0]["reason"] == "lost_worker"
    assert site.losses(run_id) == undisturbed

    # what the one that was cut off would still say is refused, and it knows
    with site.network.hosts[lost].client(site.base_url, WORKER_TOKEN) as late:
        path, stale = f"/internal/attempts/{gone.attempt_id}", {"fence": attempts[0]["fence"]}
        answers = [
            late.put(f"{path}/log", params={**stale, "offset": 0}, content=b"late\n"),
            late.post(f"{path}/beat", json=stale),
            late.post(f"{path}/finish", json={**stale, "outcome": "succeeded"}),
        ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "stale_fence")] * 3
    assert "somebody else has it now" in site.output(lost).read_text()
    kept = {int(place.name[5:]) for place in (site.base(other) / f"base_checkpoints/{run_id}").glob("step_*")}
    assert site.stored(run_id) - stored <= kept, "it stored no checkpoint after it had lost the run"

    # readers saw it all: what the first one had said before the cut, then all that the second one said
    log, second = site.log(run_id), site.written(other, run_id, 2)
    assert log.endswith(second) and site.written(lost, run_id, 1).startswith(log.removesuffix(second))
    followers.join(60)
    assert followers.error is None
    for seen in followers.seen:
        assert seen.ended and seen.steps == WHOLE and "".join(seen.log) == log


def resumed_at(site: Site, run_id: str, number: int) -> float:
    """When an attempt went on from its checkpoint, as Unix time."""
    found = site.get(f"/runs/{run_id}/events", kind="phase", limit=200)["items"]
    return float(next(e["t"] for e in found if e["attempt"] == number and e["data"]["phase"] == "resume"))


def test_who_reaches_the_server_over_the_network_needs_a_key_and_the_right_name(site: Site) -> None:
    host = site.network.hosts["a"]
    with host.client(site.base_url, "") as nobody:
        assert nobody.get("/healthz").status_code == 200
        assert nobody.get("/runs").status_code == 401
        assert nobody.get("/healthz", headers={"host": "train.example.com"}).status_code == 403
    with host.client(site.base_url, "not-the-token-of-the-workers") as stranger:
        body = {"host_id": "c", "host": "c", "name": "c", "slots": 1}
        assert stranger.post("/internal/workers", json=body).status_code == 401
    with host.client(site.base_url, site.key) as user:
        assert user.get("/runs").status_code == 200
        assert user.post("/internal/workers", json=body).status_code == 403


def run_over_both(site: Site, **more: Any) -> str:
    eventually(lambda: site.alive() == set(site.names), 60, every_s=0.1)
    return site.begin(NODE_STEPS, 5, nodes=2, gpus=0, **more)


@pytest.fixture(scope="module")
def undisturbed_nodes(site: Site) -> dict[int, float]:
    """Of a run over both; not bit for bit those of one host, whose ranks have fewer threads each."""
    run_id = run_over_both(site)
    assert ended(site.service, run_id, 120)["state"] == "succeeded"
    return site.losses(run_id)


@pytest.mark.hosts
def test_a_run_over_two_hosts_waits_for_the_one_that_is_cut_off_and_goes_on_over_both(
    site: Site, undisturbed_nodes: dict[int, float]
) -> None:
    run_id = run_over_both(site)
    with Watch(site, run_id) as watch:
        site.come_to(run_id, 12)
        assert [attempt["nodes"] for attempt in site.attempts(run_id)] == [2]
        site.network.cut("b")
        cut_at = time.monotonic()
        eventually(
            lambda: (site.get(f"/runs/{run_id}")["blocked"] or {}).get("code") == "no_capable_worker", 60
        )
        site.network.mend("b")
        mended_at = time.monotonic()
        assert ended(site.service, run_id, 120)["state"] == "succeeded"
    attempts = site.attempts(run_id)
    again = watch.spans[len(attempts), "b"].first_s - mended_at
    stopped = {name: watch.spans[1, name].last_s - cut_at for name in site.names}
    print(
        f"\nnode 1 cut off: stopped after {stopped} s; again on both {again:.1f} s after the cable was back"
    )
    assert attempts[0]["reason"] == "lost_worker" and "node 1" in attempts[0]["message"]
    assert (attempts[-1]["state"], attempts[-1]["nodes"]) == ("succeeded", 2)
    assert not watch.twice
    assert stopped["b"] < LEASE_S + 0.5
    assert site.losses(run_id) == undisturbed_nodes


@pytest.mark.hosts
def test_a_run_over_two_hosts_goes_on_without_node_0_when_it_may(
    site: Site, undisturbed_nodes: dict[int, float]
) -> None:
    run_id = run_over_both(site, min_nodes=1)
    with Watch(site, run_id) as watch:
        site.come_to(run_id, 12)
        site.network.cut("a")
        cut_at, cut_t = time.monotonic(), time.time()
        alone = lambda: next((n for n, host in watch.spans if n > 1 and host == "b"), 0)  # noqa: E731
        number = eventually(alone, 90)
        site.network.mend("a")
        assert ended(site.service, run_id, 120)["state"] == "succeeded"
    stopped = {name: watch.spans[1, name].last_s - cut_at for name in site.names}
    trained_s = resumed_at(site, run_id, number) - cut_t
    print(f"\nnode 0 cut off: stopped after {stopped} s; alone on the other after {trained_s:.1f} s")
    attempts = site.attempts(run_id)
    assert attempts[0]["reason"] == "lost_worker"
    assert (attempts[-1]["state"], attempts[-1]["nodes"], attempts[-1]["host"]) == ("succeeded", 1, "b")
    assert not watch.twice
    assert stopped["a"] < LEASE_S + 0.5
    losses = site.losses(run_id)
    assert list(losses) == list(range(1, NODE_STEPS + 1))
    assert losses == pytest.approx(undisturbed_nodes, rel=0.05)  # one rank adds up otherwise
