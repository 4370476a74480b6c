"""The life of a run: which state may follow which. Terminal states are final.

    waiting ─► queued ─► starting ─► running ─► succeeded
       │         │           │          │
       │         │           └► stopping ┴► paused, cancelled, failed
       │         ▲                 lost ──► queued (again), paused, cancelled, failed
       └─► failed (its parent failed)

`desired` is what the user wants and is written by the API only. `state` changes only through
`server.runs.repository.move`, one guarded UPDATE that asks this table.
"""

from __future__ import annotations

from collections.abc import Mapping

from nanochat_client.types import Reason, RunState

WAITING, QUEUED, STARTING, RUNNING = (
    RunState.WAITING, RunState.QUEUED, RunState.STARTING, RunState.RUNNING,
)  # fmt: skip
STOPPING, LOST, PAUSED = RunState.STOPPING, RunState.LOST, RunState.PAUSED
SUCCEEDED, FAILED, CANCELLED = RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED

#: state → states that may follow
MOVES: Mapping[RunState, frozenset[RunState]] = {
    WAITING: frozenset({QUEUED, FAILED, CANCELLED, PAUSED}),
    QUEUED: frozenset({STARTING, CANCELLED, PAUSED}),
    STARTING: frozenset({RUNNING, STOPPING, SUCCEEDED, FAILED, LOST, QUEUED}),
    RUNNING: frozenset({STOPPING, SUCCEEDED, FAILED, LOST, QUEUED}),
    STOPPING: frozenset({PAUSED, CANCELLED, SUCCEEDED, FAILED, LOST, QUEUED}),
    LOST: frozenset({QUEUED, PAUSED, CANCELLED, FAILED, RUNNING}),
    PAUSED: frozenset({QUEUED, CANCELLED}),
    SUCCEEDED: frozenset(),
    FAILED: frozenset(),
    CANCELLED: frozenset(),
}

TERMINAL: frozenset[RunState] = frozenset({SUCCEEDED, FAILED, CANCELLED})
#: a worker holds the run
LIVE: frozenset[RunState] = frozenset({STARTING, RUNNING, STOPPING})

#: failures that another attempt may survive; the others would fail in the same way again
RETRYABLE: frozenset[Reason] = frozenset(
    {Reason.LOST_WORKER, Reason.KILLED_SIGNAL, Reason.NCCL_TIMEOUT, Reason.GPU_LOST}
)

#: of those, the ones that the trainer itself may be to blame for: they can go round in circles
CRASHES: frozenset[Reason] = RETRYABLE - {Reason.LOST_WORKER}


def sources(target: RunState) -> list[RunState]:
    """States from which `target` may follow."""
    return [state for state, following in MOVES.items() if target in following]
