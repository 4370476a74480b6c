"""The faults: each a function that does it to a run at some moment and brings back what it took away.

A row returns when the fault is over; the caller then checks that the run ended as if nothing had happened
(`ends`), unless the row has said by returning True that it has checked everything itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass

import psutil
import redis
from rq import Queue
from rq.serializers import JSONSerializer

from tests.faults import trial as trials
from tests.faults.cluster import GRACE_S, LIBFAKETIME, Cluster, elapsed, wait_until
from tests.faults.readers import Readers
from tests.faults.trial import LONG, MOMENTS, STEPS, Trial

Reference = dict[int, float]
#: what a fault lasts beyond the lease
BEYOND_S = 2.0
MIB = 1024 * 1024
READERS = 100


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    act: Callable[[Trial, Reference], object]
    needs: Callable[[], str] = lambda: ""
    """Why it cannot be done on this machine; "" when it can."""
    around: Callable[[Cluster], AbstractContextManager[object]] = nullcontext
    """What the cluster must be for it, before the run begins and until it has ended."""
    steps: int = STEPS


def kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def send(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def some_moment(trial: Trial) -> None:
    trial.come_to(trial.rng.choice(MOMENTS))


# ---------------------------------------------------------------- kill -9


def a_rank(trial: Trial, reference: Reference) -> None:
    trial.come_to(trial.rng.choice(("stepping", "saving")))
    ranks = trial.cluster.family().ranks
    kill(trial.rng.sample(ranks, min(1, len(ranks))))


def torchrun(trial: Trial, reference: Reference) -> None:
    some_moment(trial)
    kill(trial.cluster.family().launchers)


def work_horse(trial: Trial, reference: Reference) -> None:
    some_moment(trial)
    kill(trial.cluster.family().horses)


def slot(trial: Trial, reference: Reference) -> None:
    some_moment(trial)
    kill(trial.cluster.family().slots)


def worker(trial: Trial, reference: Reference) -> None:
    """The supervisor alone; whoever keeps the service up starts it again."""
    some_moment(trial)
    trial.cluster.kill("worker")
    trial.cluster.up("worker")


def whole_worker(trial: Trial, reference: Reference) -> None:
    """Supervisor, slots and work-horses in one go; the guard ends the trainer."""
    some_moment(trial)
    kill(trial.cluster.family().worker)
    trial.cluster.parts["worker"].wait()  # who is only just dying would not be started again
    trial.cluster.up("worker")


def server(trial: Trial, reference: Reference) -> None:
    some_moment(trial)
    trial.cluster.kill("server")
    trial.cluster.up("server")


def queue(trial: Trial, reference: Reference) -> None:
    some_moment(trial)
    trial.cluster.kill("queue")
    trial.cluster.up("queue")


def power_loss(trial: Trial, reference: Reference) -> None:
    """Every process of the service at once."""
    some_moment(trial)
    cluster = trial.cluster
    everybody = cluster.family().everybody
    for name in ("queue", "server"):
        everybody.append(psutil.Process(cluster.parts[name].pid))
    kill(everybody)
    for part in cluster.parts.values():
        part.wait()
    cluster.up("queue", "server", "worker")


# ---------------------------------------------------------------- frozen, away, cut off


def frozen_worker(trial: Trial, reference: Reference) -> None:
    """Stopped past its lease while the trainer goes on, then continued."""
    trial.come_to("stepping")
    frozen = trial.cluster.family().worker
    send(frozen, signal.SIGSTOP)
    try:
        wait_until(lambda: trial.cluster.run(trial.id)["state"] not in ("starting", "running"))
    finally:
        send(frozen, signal.SIGCONT)


def frozen_worker_beside_another(trial: Trial, reference: Reference) -> None:
    """The other one takes over; the guard has ended the first one's trainer before."""
    cluster = trial.cluster
    _is_movable(trial)
    frozen = cluster.family(_holder(trial)).worker
    send(frozen, signal.SIGSTOP)
    try:
        wait_until(lambda: trial.newest > 1 and trial.step > 0)
    finally:
        send(frozen, signal.SIGCONT)
    _ends_beside_another(trial, reference)


def network_cut(trial: Trial, reference: Reference) -> None:
    """Between one worker and the server, for longer than the lease, with a second worker free."""
    _is_movable(trial)
    first = _holder(trial)
    cut = trial.cluster.proxies[first]
    cut.cut()
    try:
        wait_until(lambda: trial.newest > 1 and trial.step > 0)
    finally:
        cut.heal()
    _ends_beside_another(trial, reference)


@contextmanager
def a_second_worker(cluster: Cluster) -> Iterator[None]:
    """On the same base directory, as on a second host with shared storage."""
    cluster.up("worker-b")
    try:
        yield
    finally:
        cluster.down("worker-b")


def _is_movable(trial: Trial) -> None:
    trial.come_to_step(trial.rng.randint(1, trial.steps // 4))
    time.sleep(1.0)  # two renewals: the first tells the worker that it is movable, the second the server


def _holder(trial: Trial) -> str:
    """The worker that holds the run."""
    found = trial.cluster.get("/workers")["items"]
    host = next(w["host_id"] for w in found if trial.id in w["runs"])
    return next(name for name in trial.cluster.proxies if trial.cluster.host(name) == host)


def _ends_beside_another(trial: Trial, reference: Reference) -> None:
    trial.cluster.until(trial.id, "succeeded", "failed")
    first, second = trial.cluster.get(f"/runs/{trial.id}/attempts")["items"][:2]
    assert first["state"] == "lost" and first["worker"] != second["worker"], (first, second)


def queue_away(trial: Trial, reference: Reference) -> None:
    trial.come_to("stepping")
    pids = {process.pid for process in trial.cluster.family().ranks}
    trial.cluster.kill("queue")
    step = trial.step
    time.sleep(trial.away_s)
    assert trial.over or trial.step > step, "training noticed that the queue is away"
    assert trial.over or {p.pid for p in trial.cluster.family().ranks} == pids
    trial.cluster.up("queue")


def server_away(trial: Trial, reference: Reference) -> None:
    trial.come_to("stepping")
    pids = {process.pid for process in trial.cluster.family().ranks}
    trial.cluster.kill("server")
    step = trial.step
    time.sleep(trial.away_s)
    assert trial.over or trial.step > step, "training noticed that the server is away"
    assert trial.over or {p.pid for p in trial.cluster.family().ranks} == pids
    trial.cluster.up("server")


def server_under_readers(trial: Trial, reference: Reference) -> object:
    """The server is killed and comes back while a hundred readers follow the run."""
    readers = Readers(trial.cluster.url, trial.id, READERS)
    readers.start()
    trial.come_to_step(trial.rng.randint(1, trial.steps // 4))
    wait_until(lambda: readers.reading == READERS)
    trial.cluster.kill("server")
    trial.cluster.up("server")
    trial.ends(reference)
    readers.join(240)
    assert readers.error is None, repr(readers.error)
    log = trial.cluster.http.get(f"/runs/{trial.id}/logs", params={"format": "text"}).text
    for seen in readers.seen:
        assert seen.ended and seen.steps == list(range(1, trial.steps + 1)), (
            f"a reader has {len(seen.steps)} steps"
        )
        assert "".join(seen.log) == log, "a reader has another log"
    return True


# ---------------------------------------------------------------- what users do


def pause(trial: Trial, reference: Reference) -> None:
    some_moment(trial)
    state = _asked(trial, "pause", "paused")
    if state == "paused":
        assert not trial.cluster.trainers()
        trial.checkpoints_are_whole()
        trial.cluster.post(f"/runs/{trial.id}/resume")


def cancel(trial: Trial, reference: Reference) -> object:
    some_moment(trial)
    _asked(trial, "cancel", "cancelled")
    steps = len(trials.losses(trial.cluster, trial.id))
    trial.is_whole(reference, steps)
    trial.checkpoints_are_whole()
    trial.left_nothing()
    return True


def _asked(trial: Trial, verb: str, wanted: str) -> str:
    """Ask, and see it done within grace + 5 s. A run that was just ending may have succeeded."""
    answer = trial.cluster.http.post(f"/runs/{trial.id}/{verb}")
    if answer.status_code == 409:
        return str(trial.cluster.run(trial.id)["state"])
    took = elapsed()
    state = trial.cluster.until(trial.id, wanted, "succeeded", timeout_s=120)["state"]
    assert took() < GRACE_S + 5, f"{verb} took {took():.1f} s"
    return str(state)


# ---------------------------------------------------------------- messages


def messages(trial: Trial, reference: Reference) -> None:
    """Every message of the run twice, lost ones, and foreign ones of several kinds."""
    cluster = trial.cluster
    proof = cluster.base / f"proof-{trial.id}"
    with redis.Redis.from_url(cluster._environ["NANOCHAT_REDIS_URL"]) as connection:
        queue = Queue(f"host:{cluster.host('worker')}", connection=connection, serializer=JSONSerializer)
        queue.enqueue_call("os.mkdir", args=(str(proof),))
        queue.enqueue_call("worker.jobs.run_attempt", args=(["a", "list"],))
        queue.enqueue_call("worker.jobs.run_attempt", args=("no-such-attempt",))
        connection.rpush(queue.key, "no-such-job")
        connection.hset("rq:job:broken", mapping={"data": b"\x80\x04broken", "status": "queued"})
        connection.rpush(queue.key, "broken")
        wait_until(lambda: trial.newest > 0)
        attempt = next(iter(cluster.trainers().get(trial.id, {""})))
        for _ in range(5):
            queue.enqueue_call("worker.jobs.run_attempt", args=(attempt,))
        trial.come_to("stepping")
        for key in connection.scan_iter("rq:queue:host:*"):
            connection.delete(key)  # lost, whatever was there
    assert not proof.exists(), "a foreign message was executed"


# ---------------------------------------------------------------- files


def odd_files(trial: Trial, reference: Reference) -> object:
    """Broken event lines, a log line of 1 MB, progress bars, bytes that are no UTF-8."""
    trial.come_to("stepping")
    number = trial.newest
    with (trial.directory(number) / "events.jsonl").open("ab", buffering=0) as events:
        for line in (b"{broken", b"\xff\xfe", b"[]", b'{"kind": "metric", "step": -1}', b"x" * MIB):
            events.write(line + b"\n")
    with (trial.directory(number) / "run.log").open("ab", buffering=0) as log:
        log.write(b"y" * MIB + b"\n")
        for percent in range(100):
            log.write(b"\r%d%%|%s" % (percent, b"#" * percent))
        log.write(b"\n\xff\xfe\x80 no utf-8 \x00 and a nul\n")
    trial.ends(reference)
    said = [e["data"]["message"] for e in _warnings(trial)]
    assert any("'{broken'; and 3 more" in text for text in said), said  # in a row: one warning
    assert any("bytes was dropped" in text for text in said), said
    return True


def _warnings(trial: Trial) -> list[dict[str, dict[str, str]]]:
    found, cursor = [], None
    while True:
        params = {"limit": 200} | ({"cursor": cursor} if cursor else {})
        page = trial.cluster.get(f"/runs/{trial.id}/events", **params)
        found += [event for event in page["items"] if event["kind"] == "warning"]
        if (cursor := page["next_cursor"]) is None:
            return found


def log_flood(trial: Trial, reference: Reference) -> None:
    """10 MB/s for two seconds, before the first step: the run must not end before the flood does."""
    wait_until(lambda: trial.newest > 0 and (trial.directory(trial.newest) / "run.log").exists())
    with (trial.directory(trial.newest) / "run.log").open("ab", buffering=0) as log:
        for index in range(20):
            due = time.monotonic() + 0.1
            log.write(b"%06d flood\n" % index * (MIB // 13))
            time.sleep(max(0.0, due - time.monotonic()))


def disk_full(trial: Trial, reference: Reference) -> object:
    """The checkpoints' directory fills up; the run says so, and another one is not harmed."""
    return _on_a_small_disk(trial, "size=300k", "disk_full")


def read_only(trial: Trial, reference: Reference) -> object:
    return _on_a_small_disk(trial, "ro", "")


def _on_a_small_disk(trial: Trial, options: str, reason: str) -> object:
    wait_until(lambda: trial.newest > 0)
    trial.checkpoints.mkdir(parents=True, exist_ok=True)
    assert os.system(f"mount -t tmpfs -o {options} none {trial.checkpoints}") == 0
    try:
        run = trial.cluster.until(trial.id, "failed", "succeeded", "cancelled")
    finally:
        os.system(f"umount -l {trial.checkpoints}")
    assert run["state"] == "failed" and run["message"], run
    assert not reason or run["reason"] == reason, run
    trial.log_is_complete()
    trial.left_nothing()
    return True


def _mounts() -> str:
    return (
        "" if os.geteuid() == 0 and os.system("unshare -m true 2>/dev/null") == 0 else "mounting needs root"
    )


# ---------------------------------------------------------------- clocks


def clock_jump(trial: Trial, reference: Reference) -> None:
    """The clock of server and worker jumps by an hour, forwards or back, while the run goes on."""
    trial.come_to("stepping")
    hours = trial.rng.choice((-1, 1))
    trial.cluster.set_clock(hours * 3600)
    trial.come_to_step(trial.steps)
    trial.cluster.until(trial.id, "succeeded", "failed")
    attempts = trial.cluster.get(f"/runs/{trial.id}/attempts")["items"]
    assert len(attempts) == 1, f"a lease was lost: {attempts}"
    trial.cluster.set_clock(0)


@contextmanager
def false_clocks(cluster: Cluster) -> Iterator[None]:
    """Server and worker run under libfaketime; their clocks are right to begin with."""
    cluster.down("worker", "server")
    cluster.fake_clock = cluster.base / "clock"
    cluster.set_clock(0)
    cluster.up("server", "worker")
    try:
        yield
    finally:
        cluster.fake_clock = None
        cluster.down("worker", "server")
        cluster.up("server", "worker")


def _faketime() -> str:
    return "" if LIBFAKETIME.exists() else "libfaketime is not installed (apt install faketime)"


ROWS: Sequence[Row] = (
    Row("kill -9 of a rank", a_rank),
    Row("kill -9 of torchrun", torchrun),
    Row("kill -9 of the work-horse", work_horse),
    Row("kill -9 of the slot", slot),
    Row("kill -9 of the worker", worker),
    Row("kill -9 of the worker and all it runs but the trainer", whole_worker),
    Row("kill -9 of the server", server),
    Row("kill -9 of Valkey", queue),
    Row("kill -9 of everything at once", power_loss),
    Row("worker frozen past its lease", frozen_worker, steps=LONG),
    Row("worker frozen, a second one free", frozen_worker_beside_another, around=a_second_worker, steps=LONG),
    Row("network cut, a second worker free", network_cut, around=a_second_worker, steps=LONG),
    Row("Valkey away", queue_away, steps=LONG),
    Row("server away", server_away, steps=LONG),
    Row("server restarted under 100 readers", server_under_readers, steps=LONG),
    Row("pause and resume", pause),
    Row("cancel", cancel),
    Row("duplicate, lost and foreign messages", messages),
    Row("broken lines, 1 MB line, progress bars, no UTF-8", odd_files),
    Row("log flood of 10 MB/s", log_flood),
    Row("disk full", disk_full, _mounts),
    Row("read-only directory", read_only, _mounts),
    Row("clock jumps by an hour", clock_jump, _faketime, false_clocks, LONG),
)
