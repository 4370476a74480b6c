"""The command line against the real server and a worker that trains nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.conftest import Cli, put_events, put_log
from tests.nanochat.interop.test_original import write as write_original
from tests.server.checkpoints import chain
from tests.server.fake_worker import FakeWorker, post_run, run_of
from tests.services import Service, free_port


def work(worker: FakeWorker, do: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    del worker
    return thread


def test_following_a_run_prints_its_log_as_text_and_exits_0(cli: Cli, worker: FakeWorker) -> None:
    def train() -> None:
        claim = worker.claim()
        put_log(worker, claim, "[red]step 1[/red] \x1b[31mloss\x1b[0m \x1b]52;c;cHduZWQ=\x07\x9b2J3.0\n")
        worker.finish(claim)

    thread = work(worker, train)
    status, out, _ = cli("run", "tokenizer", "--set", "vocab_size=512", "--name", "t", "--follow")
    thread.join(10)
    assert status == 0
    assert "[red]step 1[/red]" in out, "markup in a log is text"
    assert not {"\x1b", "\x07", "\x9b"} & set(out), "a log does not steer the terminal"


def test_a_failed_run_exits_1_and_says_why(cli: Cli, worker: FakeWorker) -> None:
    def train() -> None:
        worker.finish(worker.claim(), "failed", reason="data_error", message="no text in base_data")

    thread = work(worker, train)
    status, _, err = cli("run", "tokenizer", "--follow")
    thread.join(10)
    assert status == 1
    assert "no text in base_data" in err


def test_a_preset_of_ones_own_that_cannot_start_is_refused_with_what_could(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "dual_gpu"
    folder.mkdir()
    (folder / "mine.py").write_text("device_batch_size = 18\nmax_seq_len = 3072\ntotal_batch_size = 100000\n")
    status, _, err = cli("run", "base", "--config", str(folder / "mine.py"))
    assert status == 2
    assert "2 rank(s) = 110592" in err and "nearest valid value is 110592" in err
    assert cli("runs", "--json")[1].strip() == "[]"


def test_set_values_take_the_types_of_the_stage(cli: Cli, tmp_path: Path) -> None:
    preset = tmp_path / "mine.py"
    preset.write_text("depth = 2\ntotal_batch_size = 2 ** 10\n")
    arguments = ["--config", str(preset), "--set", "depth=4", "--set", "max-seq-len=128", "--gpus", "0"]
    status, out, err = cli("run", "base", *arguments, "--set", "device_batch_size=1", "--json")
    assert status == 0, err
    config = json.loads(out)["config"]
    assert (config["depth"], config["max_seq_len"], config["total_batch_size"]) == (4, 128, 1024)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("run", "bse"), "base"),
        (("run", "base", "--set", "depht=3"), "/overrides/depht (nearest: depth)"),
        (("run", "base", "--set", "depth"), "key=value"),
        (("run", "base", "--config", "demo_bass"), "demo_base"),
        (("run", "base", "--config", "no/such.py"), "no/such.py"),
        (("run", "base", "--set", "depth=13"), "/overrides/depth (nearest: 14)"),
        (("run", "base", "--config", "debug_cpu", "--set", "eval_tokens=9"), "(nearest: 2048)"),
        (("pipeline", "dmo"), "demo"),
        (("show", "nobody"), "nobody"),
        (("watch", "nobody"), "nobody"),
        (("chat", "nobody", "-p", "hi"), "nobody"),
        (("shwo",), "shwo"),
    ],
)
def test_wrong_usage_exits_2_with_one_sentence_that_helps(cli: Cli, argv: tuple[str, ...], said: str) -> None:
    status, _, err = cli(*argv)
    assert status == 2
    assert said in err
    assert "Traceback" not in err


def test_a_pipeline_is_followed_to_its_scores(cli: Cli, worker: FakeWorker, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    steps = [{"name": "a", "stage": "tokenizer"}]
    file.write_text(json.dumps({"name": "mine", "steps": steps}))

    def train() -> None:
        first = worker.claim()
        metric = {"kind": "metric", "step": 1, "values": {"train/loss": 3.25, "train/tok_per_sec": 41000}}
        put_events(worker, first, {"kind": "phase", "phase": "train", "steps": 9}, metric)
        for name, of, value in (("chat_eval/before", "base", 0.1), ("chat_eval", "chatsft", 0.95)):
            put_events(
                worker,
                first,
                {
                    "kind": "eval",
                    "step": 1,
                    "name": name,
                    "values": {"identity": value},
                    "counts": {"identity": 60},
                    "details": {"checkpoint": f"{of}_checkpoints/x/step_000001"},
                },
            )
        worker.finish(first)

    thread = work(worker, train)
    status, out, err = cli("pipeline", str(file), "--follow")
    thread.join(10)
    assert status == 0, err
    assert "mine-a  succeeded  1/9  loss 3.250  41,000 tok/s" in out
    assert "score identity: base 10.0 %, sft 95.0 %" in out


def test_results_are_printed_as_a_report_as_rows_and_as_lineage(
    cli: Cli, service: Service, worker: FakeWorker
) -> None:
    runs = chain.play(service, worker)
    pipeline = runs["sft"]["pipeline"]
    for what in (pipeline, runs["sft"]["id"]):
        status, out, _ = cli("report", what)
        assert status == 0
        assert "score sums: mid 20.0 % (10-60), sft 60.0 % (30-80)" in out
    assert cli("report", pipeline, "--markdown")[1].startswith("# whole\n")
    assert json.loads(cli("report", pipeline, "--json")[1])["title"] == "whole"
    (made,) = service.client.get(f"/runs/{runs['sft']['id']}/checkpoints").json()["items"]
    out = cli("evaluations", "--checkpoint", made["id"])[1]
    assert out.startswith(f"chat_eval\tsft\t{made['id']}\t10\tsums\t0.6000\t0.300 … 0.800\t40\t")
    stages = [line.split("\t")[0] for line in cli("lineage", made["id"])[1].splitlines()]
    assert stages == ["sft", "mid", "base", "tokenizer"]
    assert "pydocs (5)\tc0ffee" in cli("lineage", made["id"])[1]
    assert cli("report", "nobody")[0] == 2


def test_a_pipeline_whose_step_fails_exits_1(cli: Cli, worker: FakeWorker, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"name": "bad", "steps": [{"name": "a", "stage": "tokenizer"}]}))
    thread = work(
        worker,
        lambda: worker.finish(worker.claim(), "failed", reason="data_error", message="no text") and None,
    )
    status, _, err = cli("pipeline", str(file), "--follow")
    thread.join(10)
    assert status == 1
    assert "no text" in err and "nanochat logs" in err


def test_reading_verbs_print_tables_and_json(cli: Cli, service: Service, worker: FakeWorker) -> None:
    run_id = post_run(service, name="looked at")["id"]
    claim = worker.claim()
    put_log(worker, claim, "hello\nworld\n")
    put_events(worker, claim, {"kind": "metric", "step": 1, "values": {"train/loss": 3.0}})
    worker.finish(claim)
    assert f"{run_id}\ttokenizer\tlooked at\tsucceeded" in cli("runs")[1]
    assert json.loads(cli("runs", "--json")[1])[0]["id"] == run_id
    assert "vocab_size" in cli("show", run_id)[1]
    assert json.loads(cli("show", run_id, "--json")[1])["state"] == "succeeded"
    assert cli("logs", run_id)[1] == "hello\nworld\n"
    assert cli("logs", run_id, "--search", "wor")[1] == "world\n"
    assert cli("logs", run_id, "-f")[:2] == (0, "hello\nworld\n")
    assert json.loads(cli("logs", run_id, "--json")[1])[0]["offset"] == 0
    assert cli("metrics", run_id)[1].startswith("train/loss\t3\t3\t3\t3\t1")
    assert json.loads(cli("metrics", run_id, "--json")[1])["series"][0]["y"] == [3.0]
    assert "alive\tCPU" in cli("gpus")[1]
    assert json.loads(cli("gpus", "--json")[1])[0]["id"] == worker.id
    for verb in ("checkpoints", "models", "pipelines"):
        assert json.loads(cli(verb, "--json")[1]) == []
    assert "looked at  succeeded" in cli("watch", run_id)[1]


def test_verbs_move_a_run(cli: Cli, service: Service) -> None:
    run_id = post_run(service)["id"]
    assert cli("pause", run_id)[0] == 0 and run_of(service, run_id)["state"] == "paused"
    assert cli("resume", run_id)[0] == 0 and run_of(service, run_id)["state"] == "queued"
    assert cli("stop", run_id)[0] == 0 and run_of(service, run_id)["state"] == "cancelled"
    assert json.loads(cli("retry", run_id, "--json")[1])["retry_of"] == run_id
    assert cli("retry", run_id, "--checkpoint", "step:7")[0] == 2, "it has none"
    status, _, err = cli("pause", run_id)
    assert status == 1 and err.startswith("nanochat: ")


def test_no_service_says_how_to_start_it(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_URL", f"http://127.0.0.1:{free_port()}")
    status, _, err = cli("runs")
    assert status == 1
    assert "start it with `nanochat up`" in err


class Became(BaseException):
    """Stands for the program that this process would have become; holds its module and arguments."""


@pytest.fixture
def becoming(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def execv(_: str, argv: list[str]) -> None:
        raise Became(*argv[2:])

    monkeypatch.setattr("os.execv", execv)
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path))


@pytest.mark.usefixtures("becoming")
def test_export_takes_a_path_or_the_id_of_a_checkpoint(cli: Cli, worker: FakeWorker, tmp_path: Path) -> None:
    run_id = post_run(worker.service)["id"]
    claim, path = worker.claim(), f"tokenizer/{run_id}"
    saved = {"kind": "checkpoint", "step": 0, "stage": "tokenizer", "path": path, "bytes": 1}
    put_events(worker, claim, {**saved, "sha256": "0" * 64, "metrics": {}, "model": None})
    (checkpoint,) = json.loads(cli("checkpoints", "--json")[1])
    (tmp_path / "mine").mkdir()
    rest = ("--format", "hf", "--out", "there", "--dtype")
    for argument, found in ((checkpoint["id"], path), ("mine", "mine"), (str(tmp_path), str(tmp_path))):
        with pytest.raises(Became) as became:
            cli("export", argument, "--out", "there", "--dtype", "bfloat16")
        assert became.value.args == ("nanochat.export", found, *rest, "bfloat16")
    status, _, err = cli("export", "nothing", "--out", "there")
    assert status == 2 and "no path here and no id" in err


@pytest.mark.usefixtures("becoming")
def test_export_without_a_service_says_what_it_looked_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_URL", f"http://127.0.0.1:{free_port()}")
    status, _, err = cli("export", "c123", "--out", "there")
    assert status == 1 and "'c123' is no path here" in err and "nanochat up" in err


def test_import_and_export_are_real_programs(tmp_path: Path) -> None:
    write_original(tmp_path / "theirs")
    code = "import sys\nfrom nanochat_client.cli import main\nmain(sys.argv[1:])"
    environ = {**os.environ, "NANOCHAT_BASE_DIR": str(tmp_path / "ours")}
    for argv in (
        ["import", str(tmp_path / "theirs")],
        ["export", "base_checkpoints/latest.pt", "--format=hf", f"--out={tmp_path / 'hf'}"],
        ["import", str(tmp_path / "hf")],
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *argv], env=environ, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == (0 if argv[1] != str(tmp_path / "hf") else 1), done.stderr
    assert (tmp_path / "hf" / "config.json").is_file()
    assert "holds no model" in done.stderr


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom nanochat_client.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = ('torch', 'numpy', 'rich', 'httpx', 'pydantic', 'websockets')\n"
        "sys.exit(3 if any(name in sys.modules for name in heavy) else 0)"
    )
    start = time.process_time()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert time.process_time() - start < 0.6
    assert done.returncode == 0, done.stderr
    assert "pipeline" in done.stdout and "doctor" in done.stdout


def test_bash_completes_verbs_and_options() -> None:
    ask = (
        'eval "$(_NANOCHAT_COMPLETE=source_bash nanochat)"\n'
        "complete -p nanochat >&2\n"
        "for word in wat --; do COMP_WORDS=(nanochat ${word}); COMP_CWORD=1; "
        '_nanochat_completion nanochat; echo "${COMPREPLY[@]}"; done'
    )
    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", ask], env={**os.environ, "PATH": here}, capture_output=True, text=True, timeout=60
    )
    assert "_nanochat_completion" in done.stderr
    assert done.stdout.splitlines()[0].strip() == "watch"
    assert "--install-completion" in done.stdout.splitlines()[1]
