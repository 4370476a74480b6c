"""What the source may not contain: shells, evaluation, pickles. It is read as syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from nanochat.paths import repo_dir

ROOMS = ("server", "worker", "nanochat", "nanochat_client", "scripts")
#: a pickle of the original's tokenizer, through an unpickler that knows the names it may load
PICKLES = {"nanochat/interop/original.py"}
#: programs that a model wrote, in the child that has locked itself in
EXECUTES = {"nanochat/sandbox"}


def files() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for file in sorted((repo_dir() / room).rglob("*.py")):
            yield str(file.relative_to(repo_dir())), ast.parse(file.read_text())


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """`a.b.c` of every call in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def argument(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(each.value) for each in call.keywords if each.arg == name), None)


def test_no_shell_is_ever_started() -> None:
    shells = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
    shells |= {"asyncio.create_subprocess_shell"}
    for name, tree in files():
        for called, call in calls(tree):
            assert called not in shells, f"{name}:{call.lineno}"
            assert argument(call, "shell") in (None, "False"), f"{name}:{call.lineno}"


def test_nothing_is_evaluated_but_what_is_locked_in() -> None:
    for name, tree in files():
        if not name.startswith(tuple(EXECUTES)):
            for called, call in calls(tree):
                assert called not in ("eval", "exec", "compile"), f"{name}:{call.lineno}: {called}"
                assert called not in ("yaml.load", "yaml.unsafe_load"), f"{name}:{call.lineno}: {called}"


def test_no_pickle_is_read_and_weights_are_weights_only() -> None:
    readers = ("pickle.load", "pickle.loads", "cPickle.loads", "dill.loads", "marshal.loads", "joblib.load")
    found = set()
    for name, tree in files():
        for called, call in calls(tree):
            assert called not in readers or name in PICKLES, f"{name}:{call.lineno}: {called}"
            if called in ("torch.load", "np.load", "numpy.load"):
                found.add(name)
                safe = argument(call, "weights_only") == "True" if called == "torch.load" else True
                assert safe and argument(call, "allow_pickle") in (None, "False"), f"{name}:{call.lineno}"
    assert found, "this test looks at torch.load, and there is one"


def test_the_server_imports_neither_pickle_nor_what_uses_it() -> None:
    for name, tree in files():
        if not name.startswith(("server/", "worker/", "nanochat_client/")):
            continue
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for each in names:
                assert each.partition(".")[0] not in ("pickle", "torch", "shelve", "dill"), f"{name}: {each}"


def test_there_is_something_to_look_at() -> None:
    assert sum(1 for _ in files()) > 100 and Path(repo_dir() / "server").is_dir()
