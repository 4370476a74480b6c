"""What is left of an attempt whose work-horse died: end its processes, ship its files, say how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nanochat.paths import attempt_dir
from nanochat_client.types import Reason
from worker import notes, processes
from worker.api import Api, Away, Refused, insist
from worker.outcome import Death, outcome
from worker.settings import WorkerSettings
from worker.ship import Shipper

log = logging.getLogger(__name__)
POLL_S = 0.1


def salvage(
    settings: WorkerSettings,
    api: Api,
    host: str,
    note: notes.Note,
    death: Death,
    give_up: Callable[[], bool],
) -> bool:
    """Bring the server what the attempt left on disk. False: it could not be reached until `give_up()`.

    An attempt that the server has lost may still deliver its files, until another one is claimed.
    """
    processes.kill(settings.base_dir, note.attempt_id)
    directory = attempt_dir(settings.base_dir, note.run_id, note.number)
    shipper = Shipper(api, note.attempt_id, note.fence, directory)  # the server says where to go on
    shipper.finish()
    shipper.start()
    while shipper.is_alive():
        shipper.join(POLL_S)
        if give_up():
            shipper.abandon()
    if not shipper.complete and not shipper.fenced.is_set():
        return False
    try:
        body = outcome(directory, death, note.fence)
        state = insist(lambda: api.finish(note.attempt_id, body), give_up).state
        log.info("run %s, attempt %d: %s, now %s", note.run_id, note.number, death.message, state)
    except Refused as refused:
        log.info("run %s, attempt %d: its end was not taken: %s", note.run_id, note.number, refused)
    except Away:
        return False
    notes.forget(settings.base_dir, host, note.attempt_id)
    return True


def killed(signal: int | None) -> Death:
    """The work-horse alone was killed."""
    return Death(Reason.KILLED_SIGNAL, "the worker's process for this run was killed", signal)


LOST_WITH_ITS_WORKER = Death(Reason.LOST_WORKER, "its worker died and came back: nothing of it was alive")
