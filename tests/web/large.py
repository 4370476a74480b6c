"""A run with a million points and a million lines of log, written where the service keeps them.

Only the beginning and what comes after goes over the worker's routes: shipping all of it takes minutes.
"""

from __future__ import annotations

import json
import math
import random
import sqlite3

from server.telemetry.blocks import Columns, pack
from tests.services import Service
from tests.web import seed

POINTS = LINES = 1_000_000
#: lines in a row of the log: what a worker ships at a time when a trainer writes much
TOGETHER = 250
#: what no other line says, and where it stands
NEEDLE, NEEDLE_AT = "the loss spiked", 700_123


def line(number: int) -> str:
    if number == NEEDLE_AT:
        return f"step {number:07d} | warning: {NEEDLE} \N{EM DASH} look here\n"
    return f"step {number:07d} | loss 2.7183 | 39,000 tok/s | dt 210 ms\n"


def million(service: Service, host: seed.Host) -> seed.Trainer:
    """The trainer of a live run that has all that; it may go on with step `POINTS`."""
    made = service.client.post("/runs", json={"stage": "tokenizer", "name": "a million"})
    trainer = seed.Trainer(host, made.raise_for_status().json()["id"])
    trainer.events({"kind": "phase", "phase": "train", "step": 0, "steps": 2 * POINTS})
    noise, began = random.Random(7).random, 1_700_000_000.0
    steps = list(range(POINTS))
    values = [3.0 + 6.0 * math.exp(-5e-6 * step) + 0.2 * noise() for step in steps]
    points = Columns(steps, [began + 0.25 * step for step in steps], values)
    blocks = [
        (
            trainer.run_id,
            "train/loss",
            number,
            block.last_step,
            block.count,
            block.coarse,
            block.fine,
            block.points,
        )
        for number, block in enumerate(pack(points))
    ]
    chunks, end = [], 0
    for first in range(0, LINES, TOGETHER):
        data = "".join(map(line, range(first, first + TOGETHER))).encode()
        chunks.append((trainer.run_id, end, end + len(data), 1, data))
        end += len(data)
    with sqlite3.connect(service.settings.base_dir / "nanochat.db", timeout=60) as database:
        database.executemany(
            "insert into metric_blocks (run_id, key, number, last_step, count, coarse, fine, points)"
            " values (?, ?, ?, ?, ?, ?, ?, ?)",
            blocks,
        )
        database.executemany(
            "insert into log_chunks (run_id, first, last, attempt, data) values (?, ?, ?, ?, ?)", chunks
        )
        (seq,) = database.execute("select last_seq from runs where id = ?", [trainer.run_id]).fetchone()
        seq += POINTS
        database.execute(
            "insert or replace into metric_heads (run_id, keys, packed, tail_events, tail_chunks)"
            " values (?, ?, ?, 0, 0)",
            [trainer.run_id, json.dumps(["train/loss"]), seq],
        )
        database.execute(
            "update runs set last_seq = ?, metric_start = ?, step = ?, log_end = ?, summary = ? where id = ?",
            [seq, seq, POINTS - 1, end, json.dumps({"train/loss": values[-1]}), trainer.run_id],
        )
    return trainer


def say(trainer: seed.Trainer, number: int) -> None:
    """A step more, and its line."""
    trainer.events({"kind": "metric", "step": number, "values": {"train/loss": 3.1}})
    trainer.log(line(number))
