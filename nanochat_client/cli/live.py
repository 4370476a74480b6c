"""`nanochat watch ID` of a run on a terminal: the view, drawn several times a second, on its own screen.

One thread reads the stream of the run, which comes back from its cursors; the main one asks every few seconds
for the hosts' load, and is the one that Ctrl-C interrupts. What was on the terminal before comes back at the
end, with the last view below it. Not covered: scrolling back in the log; `nanochat logs` has it whole.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from nanochat_client.cli.view import RunView
from nanochat_client.client import Client
from nanochat_client.errors import NanochatError
from nanochat_client.stream import State
from nanochat_client.types import Run

REDRAWS_PER_S = 5
HOSTS_EVERY_S = 2.0
#: of the log so far
LOG_BYTES = 32 * 1024
HISTORY_POINTS = 1000
LAST_VIEW_ROWS = 24


def watch_live(client: Client, run_id: str) -> Run:
    """Draw the run until it ends; returns it as it ended.

    Raises what the stream raises, and KeyboardInterrupt; the terminal is itself again by then.
    """
    from rich.console import Console
    from rich.live import Live

    view = RunView(client.run(run_id))
    found = client.metrics(run_id, max_points=HISTORY_POINTS)
    view.history(found)
    log_from = max(0, client.logs(run_id, limit=1).end - LOG_BYTES)
    stream = client.follow(run_id, after={"metric": found.last, "log": log_from})
    over = threading.Event()
    broke: list[Exception] = []

    def follow() -> None:
        try:
            for item in stream:
                view.take(item)
        except Exception as error:  # told by the thread that draws
            broke.append(error)
        finally:
            over.set()

    console = Console()
    live = Live(view, console=console, screen=True, refresh_per_second=REDRAWS_PER_S)
    try:  # not `with`: Ctrl-C during the first drawing would leave the terminal as it is
        live.start(refresh=True)
        threading.Thread(target=follow, daemon=True).start()
        _look_at_hosts(view, client.url, over)
    finally:
        live.stop()
    if broke:
        raise broke[0]
    ended = client.run(run_id)
    view.take(State(ended))
    console.print(view, height=min(console.size.height - 1, LAST_VIEW_ROWS))
    return ended


def _look_at_hosts(view: RunView, url: str, over: threading.Event) -> None:
    with Client(url) as client:
        while True:
            with suppress(NanochatError):  # the stream says it when the service stays away
                view.hosts(client.system().workers)
            if over.wait(HOSTS_EVERY_S):
                return
