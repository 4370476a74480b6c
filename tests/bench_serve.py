"""`python -m tests.bench_serve`: serving speed here, against transformers' `generate` with the same weights.

A depth-8 model is trained for a few steps (kept in `--home`), exported for the peer, and served by the real
server. Every figure is the median of rounds; a round runs all sides one after another, each in a process of
its own. Ours runs as it does by default: all cores but one. Not covered: GPUs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEPTH, VOCAB, CONTEXT, STEPS = 8, 8192, 1024, 150
PROMPT, NEW, MANY, SHARED = 64, 256, 16, 400
PORT = 8123
Figures = dict[str, float]


# ---------------------------------------------------------------- the model


def prepare(home: Path) -> Path:
    """The checkpoint, trained when `home` has none, and its export beside it."""
    places = sorted((home / "base_checkpoints" / "serve").glob("step_*"))
    if not places:
        environ = {**os.environ, "NANOCHAT_BASE_DIR": str(home)}
        for command in (
            ["scripts.tok_train", f"--vocab_size={VOCAB}", "--data=pydocs"],
            ["scripts.base_train", f"--depth={DEPTH}", f"--max_seq_len={CONTEXT}", "--device_batch_size=2",
             "--total_batch_size=2048", f"--num_iterations={STEPS}", "--eval_every=0", "--sample_every=0",
             "--core_metric_every=0", "--model_tag=serve", "--data=pydocs"],
        ):  # fmt: skip
            subprocess.run([sys.executable, "-m", *command], check=True, env=environ)
        places = sorted((home / "base_checkpoints" / "serve").glob("step_*"))
    if not (home / "hf" / "config.json").exists():
        from nanochat.interop import hf

        hf.export(places[-1], home / "hf")
    return places[-1]


def prompts(home: Path, count: int, length: int, seed: int = 0) -> list[list[int]]:
    """Beginnings of validation text, each of `length` tokens and different from the others."""
    import pydoc_data.topics

    from nanochat.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(home / "hf-ids" if (home / "hf-ids").exists() else prepare(home))
    text = tokenizer.encode("\n".join(pydoc_data.topics.topics.values()))
    at = [(seed * 7919 + i * 4099) % (len(text) - length) for i in range(count)]
    return [[tokenizer.bos, *text[start : start + length - 1]] for start in at]


# ---------------------------------------------------------------- sides, each in a process of its own


def peer(home: Path) -> Figures:
    """transformers, float32, all cores: one sequence and sixteen."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(home / "hf", dtype=torch.float32).eval()
    figures = {}
    for count in (1, MANY):
        ids = torch.tensor(prompts(home, count, PROMPT))
        more: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "do_sample": False}
        with torch.inference_mode():
            model.generate(ids, max_new_tokens=2, min_new_tokens=2, **more)
            started = time.perf_counter()
            out = model.generate(ids, max_new_tokens=NEW, min_new_tokens=NEW, **more)
        assert out.size(1) == PROMPT + NEW
        figures[f"b{count}"] = count * NEW / (time.perf_counter() - started)
    return figures


def ours(home: Path, precision: str) -> Figures:
    """The bare engine: one sequence, sixteen, and the second request with the same long beginning."""
    import torch

    from nanochat.checkpoint import load_model
    from nanochat.engine import Options, Request, make_engine
    from nanochat.engine.make import threads

    torch.set_num_threads(threads(0))
    model, tokenizer, _ = load_model(prepare(home))
    engine = make_engine(model, tokenizer, Options(MANY, precision))  # type: ignore[arg-type]
    del model

    def run(*requests: Request) -> float:
        started = time.perf_counter()
        for request in requests:
            engine.add(request)
        while engine.busy:
            engine.step()
        return time.perf_counter() - started

    figures = {}
    run(Request("warm", prompts(home, 1, PROMPT, 99)[0], 8))
    for count in (1, MANY):
        asked = [
            Request(str(i), ids, NEW, _greedy(), ignore_eos=True, salt=str(count))
            for i, ids in enumerate(prompts(home, count, PROMPT))
        ]
        figures[f"b{count}"] = count * NEW / run(*asked)
    long = prompts(home, 1, SHARED + 1, 5)[0]
    first = run(Request("first", long, 1, _greedy(), ignore_eos=True))
    second = run(Request("second", [*long[:SHARED], 300], 1, _greedy(), ignore_eos=True))
    return {**figures, "prefill_ms": first * 1000, "prefix": second / first}


def _greedy() -> Any:
    from nanochat.engine.sampling import Sampling

    return Sampling(0.0)


def quality(home: Path, tokens: int = 20_000) -> dict[str, Figures]:
    """Bits per byte of validation text and how often the likeliest token is float32's, by precision."""
    import numpy as np
    import torch

    from nanochat.checkpoint import load_model
    from nanochat.engine.native import NativeRunner
    from nanochat.engine.runner import BLOCK, Batch

    model, tokenizer, _ = load_model(prepare(home))
    texts = prompts(home, tokens // 512, 512, 3)
    bytes_of = torch.from_numpy(tokenizer.token_bytes)
    best: dict[str, torch.Tensor] = {}
    found: dict[str, Figures] = {}
    tables = np.arange(512 // BLOCK, dtype=np.int32)[None]
    rows = np.arange(512, dtype=np.int32)
    for precision in ("float32", "bfloat16", "int8"):
        runner = NativeRunner(model, precision=precision, blocks=512 // BLOCK, max_rows=512)  # type: ignore[arg-type]
        nats = size = 0.0
        likeliest = []
        for ids in texts:
            batch = Batch(np.array(ids, dtype=np.int32), rows, np.zeros_like(rows), tables, rows)
            logits = runner.forward(batch)[:-1]
            targets = torch.tensor(ids[1:])
            nats += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            size += float(bytes_of[targets].sum())
            likeliest.append(logits.argmax(1))
        best[precision] = torch.cat(likeliest)
        agree = (best[precision] == best["float32"]).float().mean()
        found[precision] = {"bpb": nats / size / 0.6931471805599453, "agree": float(agree)}
    return found


# ---------------------------------------------------------------- over HTTP


class Server:
    """`python -m server` on `home`, with the checkpoint in its database."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.model = ""

    def __enter__(self) -> Server:
        environ = {
            **os.environ, "NANOCHAT_BASE_DIR": str(self.home), "NANOCHAT_PORT": str(PORT),
            "NANOCHAT_DATABASE_URL": f"sqlite:///{self.home / 'bench.db'}", "NANOCHAT_LOG_LEVEL": "warning",
        }  # fmt: skip
        (self.home / "bench.db").unlink(missing_ok=True)
        from server.settings import Settings

        settings = Settings(database_url=environ["NANOCHAT_DATABASE_URL"])
        asyncio.run(_insert(settings.sqlalchemy_url, prepare(self.home), self.home))
        self._process = subprocess.Popen([sys.executable, "-m", "server"], env=environ)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", PORT), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        answer = json.loads(asyncio.run(_http("GET", "/v1/models", None)))
        self.model = answer["data"][0]["id"]
        asyncio.run(ask(self.model, prompts(self.home, 1, PROMPT)[0], 2))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)

    def rss(self) -> int:
        """Bytes of the server and its engine."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        pages = [Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in (self._process.pid, *children)]
        return sum(map(int, pages)) * resource.getpagesize()


async def _insert(url: str, place: Path, home: Path) -> None:
    from nanochat.checkpoint import read_meta
    from server import migrate
    from server.db import Database
    from server.models import Checkpoint, Run

    await asyncio.to_thread(migrate.upgrade, url)
    db = Database(url)
    async with db.write() as session:
        run = Run(id="r0000000001", stage="base", name="bench", state="succeeded", config={}, gpus=0)
        run.restarts_left = run.max_restarts = 0
        session.add(run)
        await session.flush()
        row = Checkpoint(
            id="c0000000001", run_id=run.id, stage="base", step=int(place.name[5:]),
            path=str(place.relative_to(home)), bytes=1, sha256="0" * 64,
        )  # fmt: skip
        row.model_config_ = read_meta(place)["model_config"]
        session.add(row)
    await db.close()


async def _http(method: str, path: str, body: Any) -> bytes:
    """A whole answer without a client library, whose own cost would be measured too."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    await _send(writer, method, path, body)
    data = await reader.read()
    writer.close()
    return data.partition(b"\r\n\r\n")[2]


async def _send(writer: asyncio.StreamWriter, method: str, path: str, body: Any) -> None:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.0\r\nhost: 127.0.0.1:{PORT}\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    await writer.drain()


async def ask(model: str, ids: list[int], count: int, **more: Any) -> tuple[float, list[float], int]:
    """(seconds to the first token, arrival of every chunk, completion tokens) of one streamed completion."""
    body = {
        "model": model, "prompt": ids, "max_tokens": count, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True}, "ignore_eos": True, **more,
    }  # fmt: skip
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    started = time.perf_counter()
    await _send(writer, "POST", "/v1/completions", body)
    arrivals, usage = [], 0
    while line := await reader.readline():
        if not line.startswith(b"data: {"):
            continue
        if line.startswith(b'data: {"error"'):
            raise RuntimeError(line.decode())
        arrivals.append(time.perf_counter() - started)
        if found := re.search(rb'"completion_tokens":(\d+)', line):
            usage = int(found[1])
    writer.close()
    if not arrivals:
        raise RuntimeError("no answer")
    return arrivals[0], arrivals, usage


def http(home: Path, server: Server, seed: int) -> Figures:
    """Sixteen streams; first tokens on an idle and on a busy server."""
    return asyncio.run(_measure(home, server.model, seed))


async def _measure(home: Path, model: str, seed: int) -> Figures:
    texts = prompts(home, MANY + 12, PROMPT, seed)
    cpu = time.process_time()
    started = time.perf_counter()
    answers = await asyncio.gather(*(ask(model, ids, NEW) for ids in texts[:MANY]))
    seconds = time.perf_counter() - started
    cpu = time.process_time() - cpu
    assert all(usage == NEW for _, _, usage in answers)
    idle = [(await ask(model, ids, 4))[0] for ids in prompts(home, 5, PROMPT, seed + 50)]
    others = [asyncio.create_task(ask(model, ids, 700)) for ids in prompts(home, 15, PROMPT, seed + 70)]
    await asyncio.sleep(1.0)
    busy = [(await ask(model, ids, 4))[0] for ids in prompts(home, 5, PROMPT, seed + 90)]
    still = sum(not task.done() for task in others)
    assert still == 15, "the others were done before the last first token was measured"
    await asyncio.gather(*others)
    return {
        "http": MANY * NEW / seconds, "client_cpu": cpu / seconds,
        "ttft_idle_ms": 1000 * statistics.median(idle), "ttft_busy_ms": 1000 * statistics.median(busy),
    }  # fmt: skip


async def many_streams(home: Path, model: str, count: int = 64) -> Figures:
    """The server's event loop while 64 clients stream, from its own histogram."""
    before = _delays(await _http("GET", "/metrics", None))
    started = time.perf_counter()
    await asyncio.gather(*(ask(model, ids, NEW) for ids in prompts(home, count, PROMPT, 200)))
    after = _delays(await _http("GET", "/metrics", None))
    seconds = time.perf_counter() - started
    counts = {bound: after[bound] - before.get(bound, 0) for bound in after}
    total = counts[float("inf")]
    p99 = min((bound for bound, seen in counts.items() if seen >= 0.99 * total), default=float("inf"))
    return {"streams64": count * NEW / seconds, "loop_p99_ms": 1000 * p99, "samples": total}


def _delays(text: bytes) -> dict[float, float]:
    found = re.findall(rb'nanochat_event_loop_delay_seconds_bucket\{le="([^"]+)"\} (\S+)', text)
    return {float(bound): float(count) for bound, count in found}


async def soak(home: Path, server: Server, seconds: float, at_once: int = 64) -> Figures:
    """Mixed requests, `at_once` at a time: lengths, streams, choices, clients that leave."""
    import random

    chance = random.Random(1)
    end = time.perf_counter() + seconds
    counts = {"requests": 0, "left": 0, "errors": 0}
    sizes: list[tuple[float, int]] = []

    async def client(number: int) -> None:
        while time.perf_counter() < end:
            (ids,) = prompts(home, 1, chance.choice((8, 64, 200, 500)), chance.randrange(10_000))
            more = {"temperature": chance.choice((0, 0.8)), "top_p": chance.choice((1, 0.9))}
            work = ask(server.model, ids, chance.choice((1, 16, 64, 256)), **more)
            counts["requests"] += 1
            try:
                if chance.random() < 0.1:
                    await asyncio.wait_for(work, chance.random())
                else:
                    await work
            except TimeoutError:
                counts["left"] += 1
            except (RuntimeError, OSError) as error:
                counts["errors"] += 1
                print("soak:", str(error)[:300], file=sys.stderr)

    async def watch() -> None:
        while time.perf_counter() < end:
            sizes.append((time.perf_counter(), server.rss()))
            await asyncio.sleep(2)

    started = time.perf_counter()
    await asyncio.gather(watch(), *(client(number) for number in range(at_once)))
    await asyncio.sleep(2)
    settled = [size for at, size in sizes if at > started + min(60, seconds / 2)]
    text = await _http("GET", "/metrics", None)
    running = re.findall(rb"nanochat_num_requests_(?:running|waiting)\{[^}]*\} (\S+)", text)
    used = re.findall(rb"nanochat_kv_cache_usage_perc\{[^}]*\} (\S+)", text)
    return {
        **counts, "growth_mb": (server.rss() - settled[0]) / 1e6,
        "left_running": sum(map(float, running)), "left_in_cache": sum(map(float, used)),
    }  # fmt: skip


# ---------------------------------------------------------------- the table


def table(rounds: list[Figures], loop: Figures, bits: dict[str, Figures]) -> list[tuple[str, ...]]:
    """Rows of: what, figures, measured, must, aim."""
    m = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    all_ = f"b{MANY}"

    def ratio(of: str, by: str) -> float:
        return statistics.median(one[of] / one[by] for one in rounds)

    def speeds(of: str, by: str) -> str:
        return f"{m[of]:.0f} / {m[by]:.0f} tok/s"

    exact, rough, small = (bits[name] for name in ("float32", "bfloat16", "int8"))
    first, again = m["ours prefill_ms"], m["ours prefix"]
    delay, samples = loop["loop_p99_ms"], loop["samples"]
    return [
        ("batch 1 / peer", speeds("ours b1", "peer b1"), f"{ratio('ours b1', 'peer b1'):.1f}×", "2.5×", "5×"),
        ("batch 1 in int8 / peer", speeds("int8 b1", "peer b1"),
         f"{ratio('int8 b1', 'peer b1'):.1f}×", "5×", "8×"),
        ("… its bits per byte", f"{small['bpb']:.4f} / {exact['bpb']:.4f}",
         f"{small['bpb'] / exact['bpb'] - 1:+.2%}", "0.5 %", ""),
        ("16 at once / peer", speeds(f"ours {all_}", f"peer {all_}"),
         f"{ratio(f'ours {all_}', f'peer {all_}'):.1f}×", "2.5×", "5×"),
        ("16 in int8 / peer", speeds(f"int8 {all_}", f"peer {all_}"),
         f"{ratio(f'int8 {all_}', f'peer {all_}'):.1f}×", "", ""),
        ("16 streams over HTTP / bare", speeds("http", f"ours {all_}"),
         f"{ratio('http', f'ours {all_}'):.0%}", "85 %", "95 %"),
        ("… CPU of the client", "", f"{m['client_cpu']:.0%} of a core", "", ""),
        ("first token, idle", "64-token prompt, HTTP", f"{m['ttft_idle_ms']:.0f} ms", "60 ms", "30 ms"),
        ("first token beside 15 others", "", f"{m['ttft_busy_ms']:.0f} ms", "250 ms", "120 ms"),
        ("the same 400 tokens again", f"{first:.0f} ms the first time", f"{again:.2f}×", "0.2×", "0.1×"),
        ("event loop p99, 64 streams", f"{samples:.0f} samples", f"≤ {delay:.0f} ms", "20 ms", "5 ms"),
        ("likeliest token as in float32", "bfloat16", f"{rough['agree']:.1%}", "", ""),
        ("likeliest token as in float32", "int8", f"{small['agree']:.1%}", "", ""),
    ]  # fmt: skip


def child(home: Path, side: str) -> Figures:
    command = [sys.executable, "-m", "tests.bench_serve", "--home", str(home), "--child", side]
    found: Figures = json.loads(subprocess.check_output(command).splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench_serve", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--home", type=Path, default=None, help="keep the model here between calls")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", type=float, default=0.0, help="seconds of mixed requests, and nothing else")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    home = given.home or Path(tempfile.mkdtemp(prefix="nanochat-bench-serve-"))
    home.mkdir(parents=True, exist_ok=True)
    sides: dict[str, Callable[[], Figures]] = {
        "peer": lambda: peer(home),
        "ours": lambda: ours(home, "bfloat16"),
        "int8": lambda: ours(home, "int8"),
    }
    if given.child:
        print(json.dumps(sides[given.child]()))
        return 0
    prepare(home)
    if given.soak:
        with Server(home) as server:
            for key, value in asyncio.run(soak(home, server, given.soak)).items():
                print(f"{key:16}{value:10.1f}")
        return 0
    rounds: list[dict[str, float]] = []
    with Server(home) as server:
        for number in range(given.rounds):
            one: Figures = {}
            for side in sides:
                one |= {f"{side} {key}": value for key, value in child(home, side).items()}
            one |= http(home, server, number)
            rounds.append(one)
            print(json.dumps({key: round(value, 2) for key, value in one.items()}), file=sys.stderr)
        loop = asyncio.run(many_streams(home, server.model))
    rows = table(rounds, loop, quality(home))
    print("| what | figures | measured | must | aim |\n|---|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
