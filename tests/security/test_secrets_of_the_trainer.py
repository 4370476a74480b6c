"""What the service knows stays out of the processes that it starts, and pickles out of the queue."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from nanochat.interop import pickled
from nanochat_client.types import Claim
from server.exports.exporter import Exporter
from server.exports.places import place_of
from server.files import check
from server.settings import Settings
from worker import slot
from worker.launch import environment

SECRETS = {
    "NANOCHAT_WORKER_TOKEN": "planted-token",
    "NANOCHAT_API_KEY": "planted-key",
    "PGPASSWORD": "planted-password",
    "NANOCHAT_DATABASE_URL": "postgresql://u:" + "planted@db/x",
    "NANOCHAT_REDIS_URL": "redis://:" + "planted@queue",
    "NANOCHAT_ENGINE_KEY": "planted-engine",
    "AWS_SECRET_ACCESS_KEY": "planted-aws",
    "LD_PRELOAD": "/planted.so",
    "PYTHONSTARTUP": "/planted.py",
    "SSH_AUTH_SOCK": "/planted.sock",
}


def test_a_trainer_inherits_no_secret_of_the_service(tmp_path: Path) -> None:
    claim = Claim.model_construct(
        run_id="r", attempt_id="a", number=1, stage="base", config={}, processes=1, gpus=[0]
    )
    given = environment(claim, tmp_path, tmp_path, {"PATH": "/bin", "HF_TOKEN": "kept", **SECRETS})
    assert not set(SECRETS) & set(given) and "planted" not in str(given)
    assert given["HF_TOKEN"] == "kept" and given["PATH"] == "/bin"


@pytest.mark.parametrize("who", ["the check of uploads", "exports", "weights of others"])
async def test_what_reads_the_bytes_of_others_inherits_no_secret_either(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    given: list[dict[str, str]] = []

    async def keep(*command: str, env: dict[str, str], **_: object) -> None:
        given.append(env)
        raise Stopped

    monkeypatch.setattr("asyncio.create_subprocess_exec", keep)
    file = tmp_path / "a"
    file.touch()
    with pytest.raises(Stopped):
        match who:
            case "the check of uploads":
                await check.read("text", "a", file)
            case "exports":
                place = place_of(tmp_path, "c1", "hf-float32")
                with file.open("w") as lock:
                    await Exporter(Settings(base_dir=tmp_path))._export(place, tmp_path, lock)
            case _:
                await keep(env=pickled._environment())
    (environ,) = given
    assert not set(SECRETS) & set(environ) and "planted" not in str(environ)


class Stopped(Exception):
    """Nothing is started."""


class Evil:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.target),)  # type: ignore[return-value]


def test_a_pickle_planted_in_the_queue_is_not_read(redis_url: str, tmp_path: Path) -> None:
    """Both sides read RQ's messages as JSON; a pickle is an error, never a program."""
    target = tmp_path / "owned"
    data = pickle.dumps(("worker.jobs.run_attempt", None, (Evil(target),), {}))
    with redis.Redis.from_url(redis_url) as connection:
        connection.hset(
            "rq:job:evil", mapping={"data": zlib.compress(data), "origin": "host:h", "status": "queued"}
        )
        job = Job.fetch("evil", connection=connection, serializer=JSONSerializer)
        assert slot._attempt_of(job) is None
        assert not target.exists()
        honest = Queue("host:h", connection=connection, serializer=JSONSerializer)
        sent = honest.enqueue("worker.jobs.run_attempt", "a1")
        assert b'"a1"' in zlib.decompress(connection.hget(f"rq:job:{sent.id}", "data"))  # type: ignore[arg-type]
    pickle.loads(pickle.dumps(Evil(target)))
    assert target.exists(), "the pickle would have done what it says"
